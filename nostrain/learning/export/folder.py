"""The whole folder: weights, `config.json`, `generation_config.json`, the tokenizer, a card. It appears when it is whole and its root is the run's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.learning.export.card import model_card
from nostrain.learning.export.weights import write_weights
from nostrain.protocol.dataset import TOKENIZER_FILE
from nostrain.protocol.export import Exported, ExportModel, ModelState, RunModel, Vocabulary
from nostrain.protocol.hf_config import hf_config
from nostrain.protocol.tensors import model_problem, model_tensors, parameter_count
from nostrain.sparseloco.checkpoint import write_bytes
from nostrain.units import Digest

CARD: Final = "README.md"


def export_model(job: ExportModel) -> Exported:
    """Make the folder; nothing is left of it when that fails.

    Raises:
        LocalProtocolError: there is something at `out`, the tokenizer is not the dataset's, or a value is too large for the type.
        RemoteProtocolError: the checkpoint is not one of this model, or of none of the states.
        OSError: a file cannot be read, or the disk is full.
    """
    out, source = Path(job.out).absolute(), job.source
    if os.path.lexists(out):
        raise LocalProtocolError(f"{out}: is there already; nothing is overwritten")
    if not out.parent.is_dir():
        raise LocalProtocolError(f"{out.parent}: no such folder; make it first")
    if (problem := model_problem(source.model)) is not None:
        raise RemoteProtocolError("run manifest", problem)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.mkdir()
    try:
        root = write_weights(Path(source.checkpoint), model_tensors(source.model), temporary, job.dtype, job.shard_bytes)
        state = state_of(source, root)
        config = hf_config(source.model) | {"dtype": job.dtype}
        if source.vocabulary is not None:
            end = {"eos_token_id": source.vocabulary.separator}
            config |= end
            _write_json(temporary / "generation_config.json", end)
            copy_tokenizer(source.vocabulary, temporary)
        _write_json(temporary / "config.json", config)
        write_bytes(temporary / CARD, model_card(source, state, job.dtype).encode())
        files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    has_tokenizer = TOKENIZER_FILE in files
    return Exported(str(out), source.run, state, parameter_count(source.model), job.dtype, files, has_tokenizer)


def state_of(source: RunModel, root: Digest) -> ModelState:
    """The latest state that has this Merkle root. Raises RemoteProtocolError when none has."""
    found = [state for state in source.states if state.root == root]
    if not found:
        known = "the run's state has another" if len(source.states) == 1 else f"none of the run's {len(source.states)} states has it"
        raise RemoteProtocolError("checkpoint", f"{source.checkpoint} has the Merkle root {root}; {known}")
    return max(found, key=lambda state: state.round)


def copy_tokenizer(vocabulary: Vocabulary, folder: Path) -> None:
    """`tokenizer.json`, and the `tokenizer_config.json` that `AutoTokenizer` wants beside it. Raises LocalProtocolError for another tokenizer."""
    if vocabulary.tokenizer is None or vocabulary.path is None:
        return
    content = Path(vocabulary.path).read_bytes()
    if sha256_hex(content) != vocabulary.tokenizer.sha256:
        raise LocalProtocolError(f"{vocabulary.path}: not the tokenizer that the run's dataset was built with")
    write_bytes(folder / TOKENIZER_FILE, content)
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if (end := _token(content, vocabulary.separator)) is not None:
        settings["eos_token"] = end
    _write_json(folder / "tokenizer_config.json", settings)


def _token(tokenizer: bytes, number: int) -> str | None:
    """The special token of that number, if it has one."""
    try:
        added = json.loads(tokenizer)["added_tokens"]
        return next((str(token["content"]) for token in added if token["id"] == number), None)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_bytes(path, json.dumps(value, indent=2).encode() + b"\n")
