"""The trained model as a folder that `LlamaForCausalLM.from_pretrained` opens: `config.json` and `model.safetensors`. Needs no tensors."""

from __future__ import annotations

import json
import shutil
from hashlib import file_digest
from pathlib import Path
from typing import Any

from nostrain.devnet.observer import Observer
from nostrain.errors import Unavailable
from nostrain.protocol.manifest import BlobRef, ModelSpec


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
    (folder / "config.json").write_text(json.dumps(llama_config(run.manifest.model), indent=2) + "\n")
    return folder


def last_checkpoint(observer: Observer) -> BlobRef | None:
    """The checkpoint of the last round that has a result."""
    results = [watched.round.result[1] for _, watched in sorted(observer.rounds.items()) if watched.round.result is not None]
    return results[-1].checkpoint if results else None


def llama_config(model: ModelSpec) -> dict[str, Any]:
    """`transformers.LlamaConfig` as JSON. Rope theta stands where transformers 5 reads it and where mlx-lm does."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.num_hidden_layers,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": model.max_position_embeddings,
        "rope_theta": float(model.rope_theta),
        "rope_parameters": {"rope_type": "default", "rope_theta": float(model.rope_theta)},
        "tie_word_embeddings": model.tie_word_embeddings,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-06,
        "bos_token_id": None,
        "eos_token_id": None,
    }
