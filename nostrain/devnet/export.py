"""The trained model as a folder that `LlamaForCausalLM.from_pretrained` opens: `config.json` and `model.safetensors`. Needs no tensors."""

from __future__ import annotations

import shutil
from hashlib import file_digest
from pathlib import Path

from nostrain.devnet.observer import Observer
from nostrain.errors import Unavailable
from nostrain.protocol.hf_config import config_json
from nostrain.protocol.manifest import BlobRef


def export_model(observer: Observer, blobs: Path, folder: Path) -> Path | None:
    """Make `folder` from the checkpoint of the last result, found in the blob store `blobs`; None when no round was closed.

    Raises Unavailable when the checkpoint is not there, or is another than the result says.
    """
    checkpoint, run = last_checkpoint(observer), observer.run
    if checkpoint is None or run is None:
        return None
    folder.mkdir()
    target = folder / "model.safetensors"
    try:
        shutil.copyfile(blobs / checkpoint.sha256[:2] / checkpoint.sha256, target)
        with target.open("rb") as file:
            digest = file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Unavailable(f"the last checkpoint cannot be exported: {error}") from error
    if digest != checkpoint.sha256:
        raise Unavailable(f"the last checkpoint has the digest {digest[:8]}, the result says {checkpoint.sha256[:8]}")
    (folder / "config.json").write_text(config_json(run.manifest.model))
    return folder


def last_checkpoint(observer: Observer) -> BlobRef | None:
    """The checkpoint of the last round that has a result."""
    results = [watched.round.result[1] for _, watched in sorted(observer.rounds.items()) if watched.round.result is not None]
    return results[-1].checkpoint if results else None
