"""A run's model on its way out: where its checkpoint lies and what is known of it, and what `nostrain-ctl model export` is asked for."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from nostrain.protocol.manifest import BlobRef, ModelSpec, RunManifest
from nostrain.units import Digest, EventId, Pubkey

FloatType = Literal["float32", "bfloat16", "float16"]
SHARD_MB: Final = 5_000
"""The largest safetensors file, in 10⁶ bytes, if nobody says otherwise: what Hugging Face long had."""


class ModelState(msgspec.Struct, frozen=True):
    """A state of the run's model; `round` 0 is the manifest's."""

    round: int
    state_id: Digest
    root: Digest


class Vocabulary(msgspec.Struct, frozen=True):
    """What the dataset's manifest says of tokens: the one that ends a document, and the tokenizer, None for bytes. `path`: where that is here, if it is."""

    separator: int
    tokenizer: BlobRef | None = None
    path: str | None = None


class RunModel(msgspec.Struct, frozen=True):
    """A checkpoint of a run in the file `checkpoint`, and all `states` of which it may be. `vocabulary` is None where the dataset is not known."""

    run: EventId
    name: str
    coordinator: Pubkey
    rounds: int
    model: ModelSpec
    dataset: Digest
    states: tuple[ModelState, ...]
    checkpoint: str
    vocabulary: Vocabulary | None = None

    @classmethod
    def of(
        cls,
        run: EventId,
        coordinator: Pubkey,
        manifest: RunManifest,
        states: tuple[ModelState, ...],
        checkpoint: str,
        vocabulary: Vocabulary | None = None,
    ) -> RunModel:
        """Of a run, with what its manifest says."""
        return cls(
            run, manifest.name, coordinator, manifest.rounds, manifest.model, manifest.dataset.sha256, states, checkpoint, vocabulary
        )


class ExportModel(msgspec.Struct, frozen=True):
    """Make the folder `out`, which is not there yet, of `source`: safetensors of `dtype`, in files of at most `shard_bytes` where tensors allow it."""

    source: RunModel
    out: str
    dtype: FloatType = "float32"
    shard_bytes: int = SHARD_MB * 1_000_000


class Exported(msgspec.Struct, frozen=True):
    """What was made: `files` with their sizes; `state` is the one that the checkpoint was found to be. `tokenizer`: whether it is among the files."""

    folder: str
    run: EventId
    state: ModelState
    parameters: int
    dtype: FloatType
    files: dict[str, int]
    tokenizer: bool
