"""Jobs for the engine process and their results: plain data, arrays as file paths, losses as integers (nanonats: 1e-9 nat a token).

Every job but `CalibrateJob`, which measures time, is a pure function of its fields and of the files they name. Output paths are written to a temporary name, fsynced and renamed.
"""

from __future__ import annotations

import msgspec

from nostrain.protocol.dataset import Dtype
from nostrain.protocol.manifest import BlobRef, CodecSpec, ModelSpec, OuterSpec, ScoringSpec, TensorSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.units import Digest, Ppm, Pubkey


class ModelJob(msgspec.Struct, frozen=True):
    """A job on checkpoints or deltas of `model`."""

    model: ModelSpec

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """The tensors of the model."""
        return model_tensors(self.model)


class BuildRunJob(msgspec.Struct, frozen=True, tag="build_run"):
    """Cut text into shards, or take the built `dataset` (a folder), and make the initial checkpoint of `model`.

    `text` is a folder, or None for this Python's standard library. A dataset's shards and its validation shard must have more tokens than `least_tokens` of
    each; its vocabulary becomes the model's. `init` is a folder with a pretrained checkpoint, which then is the first one, instead of `model`.
    """

    text: str | None
    model: ModelSpec
    seed: int
    shard_bytes: int
    validation_bytes: int
    out_dir: str
    dataset: str | None = None
    init: str | None = None
    least_tokens: tuple[int, int] = (0, 0)


class BuildRunResult(msgspec.Struct, frozen=True, tag="build_run_result"):
    """`blobs` pairs every blob made (shards, validation, dataset manifest, checkpoint) with its local path."""

    dataset: BlobRef
    checkpoint: BlobRef
    root: Digest
    blobs: tuple[tuple[BlobRef, str], ...]
    total_bytes: int
    model: ModelSpec


class InspectJob(ModelJob, frozen=True, tag="inspect"):
    """Check that a safetensors file holds exactly the model's tensors in float32, finite, and compute its root."""

    checkpoint: str


class InspectResult(msgspec.Struct, frozen=True, tag="inspect_result"):
    """`error` names what is wrong, else None and `root` is the Merkle root of the checkpoint."""

    root: Digest | None
    error: str | None = None


class CalibrateJob(ModelJob, frozen=True, tag="calibrate"):
    """Some inner steps of `training` on values and tokens of no meaning, for a second or two: how fast they are. No file is read or written."""

    training: TrainingSpec


class CalibrateResult(msgspec.Struct, frozen=True, tag="calibrate_result"):
    """So many tokens were trained in so long."""

    tokens: int
    train_ms: int


class OwnStep(msgspec.Struct, frozen=True):
    """The outer step that a worker takes by itself before it trains: its `delta` (in the file `path`) as one of `committed` (docs/adr/0048)."""

    outer: OuterSpec
    delta: Digest
    path: str
    committed: int


class TrainJob(ModelJob, frozen=True, tag="train"):
    """H inner steps from `checkpoint` on windows of `shard` drawn from `seed` (hex32), then error feedback, top-k, quantize, encode.

    `state_in`/`state_out` is the worker's private state (error-feedback residual, AdamW moments); None at its first round.
    `steps_done` counts the inner steps of earlier rounds, for the learning-rate schedule. With `own`, training begins one such step further on.
    """

    training: TrainingSpec
    codec: CodecSpec
    checkpoint: str
    shard: str
    seed: str
    steps_done: int
    state_in: str | None
    delta_out: str
    state_out: str
    dtype: Dtype = "uint8"
    own: OwnStep | None = None


class TrainResult(msgspec.Struct, frozen=True, tag="train_result"):
    """The encoded delta and what it cost. Losses are means over the first and the last quarter of the steps.

    `lost`: private files of earlier rounds that were gone or damaged, so that training began without them; a line each.
    """

    delta: BlobRef
    loss_first_nanonats: int
    loss_last_nanonats: int
    tokens: int
    train_ms: int
    encode_ms: int
    lost: tuple[str, ...] = ()


class Candidate(msgspec.Struct, frozen=True):
    """One revealed delta to score, with the shard and the window seed that its worker was assigned."""

    worker: Pubkey
    delta: str
    shard: str
    window_seed: str


class EvaluateJob(ModelJob, frozen=True, tag="evaluate"):
    """Score the candidates of a round at `checkpoint`: loss before and after theta - (alpha / R) * c_i * delta_i, float64 accumulation.

    `unassigned` are shards nobody was assigned; windows on them come from `seed` (SHA256(receipt id ‖ b_j), hex32). Windows on a candidate's
    own shard are a `seed`-chosen sample of the exact windows that it should have trained on. `committed` is R, the number of pinned
    commitments. `earlier` are deltas of earlier rounds, by digest, for the index-overlap check.
    """

    training: TrainingSpec
    codec: CodecSpec
    outer: OuterSpec
    scoring: ScoringSpec
    checkpoint: str
    candidates: tuple[Candidate, ...]
    committed: int
    unassigned: tuple[str, ...]
    seed: str
    earlier: tuple[tuple[Digest, str], ...] = ()
    dtype: Dtype = "uint8"


class CandidateScore(msgspec.Struct, frozen=True):
    """`error` says why the blob is no valid delta (then the rest is zero or empty); `weight` is c_i in 1/65536.

    `gain` = mean(before) - mean(after) on unassigned data; `provenance` is D_i and `provenance_se` its standard error (design section 12),
    all in nanonats. `overlap_ppm`: largest share of its indices found in one earlier delta; `overlap_round_ppm`: in another candidate.
    """

    worker: Pubkey
    error: str | None = None
    weight: int = 0
    gain: int = 0
    losses_after: tuple[int, ...] = ()
    assigned_gain: int = 0
    provenance: int = 0
    provenance_se: int = 0
    overlap_ppm: Ppm = Ppm(0)
    overlap_round_ppm: Ppm = Ppm(0)


class EvaluateResult(msgspec.Struct, frozen=True, tag="evaluate_result"):
    """Per-batch losses before (shared by all candidates), and each candidate's score in the order given."""

    losses_before: tuple[int, ...]
    scores: tuple[CandidateScore, ...]
    tokens: int
    evaluate_ms: int


class ValidationJob(ModelJob, frozen=True, tag="validation"):
    """Mean loss on the first `tokens` tokens of the held-out shard."""

    checkpoint: str
    shard: str
    tokens: int
    sequence_length: int
    eval_batch: int
    dtype: Dtype = "uint8"


class ValidationResult(msgspec.Struct, frozen=True, tag="validation_result"):
    """Nanonats a token; bits per byte = loss / ln 2 · tokens / bytes of text of the shard, which with byte tokens are the same."""

    loss_nanonats: int
    tokens: int


class AggregateJob(ModelJob, frozen=True, tag="aggregate"):
    """The outer step over the accepted deltas, in the order given; `committed` is R. Needs numpy only."""

    codec: CodecSpec
    outer: OuterSpec
    state_id: Digest
    checkpoint: str
    deltas: tuple[tuple[Digest, str], ...]
    committed: int
    checkpoint_out: str


class AggregateResult(msgspec.Struct, frozen=True, tag="aggregate_result"):
    """The next state: identity, Merkle root, safetensors file, the integer weights c_i (1/65536) used. `error` names a blob that is no delta."""

    state_id: Digest | None
    root: Digest | None
    checkpoint: BlobRef | None
    weights: tuple[int, ...] = ()
    error: str | None = None
    aggregate_ms: int = 0


Job = BuildRunJob | InspectJob | CalibrateJob | TrainJob | EvaluateJob | ValidationJob | AggregateJob
JobResult = BuildRunResult | InspectResult | CalibrateResult | TrainResult | EvaluateResult | ValidationResult | AggregateResult
