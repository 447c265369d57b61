"""A run that begins with a pretrained checkpoint: the same parameters as transformers has, a loss that starts where it left off, clear refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from nostrain.errors import LocalProtocolError
from nostrain.learning.data import cut, training_windows
from nostrain.learning.dispatch import run_job
from nostrain.learning.engines.base import Moments
from nostrain.learning.engines.pytorch.families import build_module
from nostrain.learning.engines.pytorch.model import TorchModel, tensor_specs
from nostrain.learning.initial import initial_parameters
from nostrain.learning.pretrained import INDEX, SINGLE, load_pretrained
from nostrain.protocol.jobs import BuildRunJob, BuildRunResult, TrainJob, TrainResult, ValidationJob, ValidationResult
from nostrain.protocol.manifest import ModelSpec
from nostrain.protocol.tensors import model_tensors

from .conftest import CODEC, MODEL, TRAINING, write_text

FAMILIES = {
    "llama tied": msgspec.structs.replace(MODEL, tie_word_embeddings=True),
    "llama": MODEL,
    "qwen2": msgspec.structs.replace(MODEL, architecture="qwen2"),
    "qwen3": msgspec.structs.replace(MODEL, architecture="qwen3", head_dim=16, tie_word_embeddings=True),
}


def saved(spec: ModelSpec, folder: Path, dtype: torch.dtype = torch.bfloat16, flat: Any = None, **options: Any) -> Any:
    """A folder as `save_pretrained` of transformers writes it, and its module."""
    module = build_module(spec)
    if flat is not None:
        module = TorchModel(spec, flat, torch.device("cpu")).module
    module = module.to(dtype)
    module.save_pretrained(folder, **options)
    return module


def as_float32(module: Any) -> Any:
    by_name = dict(module.named_parameters())
    return torch.cat([by_name[tensor.name].detach().float().flatten() for tensor in tensor_specs(module)]).numpy()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_parameters_are_those_of_transformers(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    module = saved(FAMILIES[family], tmp_path, dtype, max_shard_size="20KB")
    assert (tmp_path / INDEX).is_file()
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    spec, flat = load_pretrained(tmp_path)
    assert spec == msgspec.structs.replace(FAMILIES[family], head_dim=FAMILIES[family].head_size)
    expected = as_float32(module)
    expected[np.abs(expected) < np.finfo(np.float32).tiny] = 0
    assert flat.tobytes() == (expected + 0).tobytes()


def test_fine_tuning_starts_where_pretraining_ended(tmp_path: Path) -> None:
    """80 steps on such text, saved in bfloat16 and in parts with tied embeddings; then a run of ours on it."""
    text = tmp_path / "text"
    text.mkdir()
    for number in range(20):
        (text / f"{number}.txt").write_text(" ".join(f"row {at * number % 10} of the same words" for at in range(80)))
    spec = FAMILIES["llama tied"]
    model = TorchModel(spec, initial_parameters(spec, 1), torch.device("cpu"))
    training = msgspec.structs.replace(TRAINING, inner_steps=80, batch_size=4)
    shard = np.frombuffer((text / "1.txt").read_bytes(), np.uint8)
    windows = cut(shard, training_windows("ab" * 32, len(shard), training), training.sequence_length)
    losses = model.inner_steps(windows, training, 0, Moments.fresh(len(model.read())))
    folder = tmp_path / "pretrained"
    saved(spec, folder, flat=model.read(), max_shard_size="40KB")

    def started(init: str | None) -> tuple[BuildRunResult, int, int]:
        out = tmp_path / ("tuned" if init else "fresh")
        run = run_job(BuildRunJob(str(text), spec, 7, 4096, 4096, str(out), init=init))
        assert isinstance(run, BuildRunResult)
        blobs = {Path(path).name: path for _, path in run.blobs}
        checkpoint = blobs["model.safetensors"]
        measured = run_job(ValidationJob(run.model, checkpoint, blobs["validation.bin"], 32 * 60, 32, 8))
        job = TrainJob(run.model, TRAINING, CODEC, checkpoint, blobs["shard-0000.bin"], "cd" * 32, 0, None, str(out / "d"), str(out / "s"))
        trained = run_job(job)
        assert isinstance(measured, ValidationResult)
        assert isinstance(trained, TrainResult)
        return run, measured.loss_nanonats, trained.loss_first_nanonats

    tuned, loss, first = started(str(folder))
    _, fresh_loss, fresh_first = started(None)
    assert tuned.model.tie_word_embeddings
    assert loss < 0.5 * fresh_loss
    assert first < 0.5 * fresh_first
    assert loss / 1e9 == pytest.approx(losses[-1], abs=0.5)


def broken(folder: Path, **changes: Any) -> Path:
    """The checkpoint with another configuration; `tensors` changes what is in its one file."""
    saved(MODEL, folder, torch.float32)
    tensors = changes.pop("tensors", None)
    if tensors is not None:
        save_file(tensors(load_file(folder / SINGLE)), folder / SINGLE)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def without(name: str) -> Any:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mixtral"}, "model_type 'mixtral' is not one of"),
        ({"hidden_act": "gelu"}, "only silu is supported"),
        ({"num_hidden_layers": 3}, "no tensor model.layers.2"),
        ({"num_hidden_layers": 1}, "more tensors are not of a llama"),
        ({"intermediate_size": 65}, r"mlp.down_proj.weight is of shape \(32, 64\), config.json asks for \(32, 65\)"),
        ({"tensors": without("model.norm.weight")}, "no tensor model.norm.weight"),
        (
            {"tensors": lambda all_: all_ | {"model.norm.weight": torch.full((32,), torch.nan)}},
            "model.norm.weight has values that are not finite",
        ),
        ({"tensors": lambda all_: all_ | {"model.norm.weight": torch.ones(32, dtype=torch.float64)}}, "is of type F64"),
        ({"tensors": lambda all_: all_ | {"vision.weight": torch.ones(2)}}, "vision.weight and 0 more"),
    ],
)
def test_what_cannot_be_trained_is_named(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match=reason):
        load_pretrained(broken(tmp_path, **changes))


def test_files_that_are_no_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match=r"config\.json: there is no such file"):
        load_pretrained(tmp_path)
    folder = broken(tmp_path)
    whole = (folder / SINGLE).read_bytes()
    for content, reason in (
        (whole[:-10], "cut short"),
        (b"", "not a safetensors file"),
        (b"\x09" + bytes(7) + b"{" * 9, "not a safetensors file"),
    ):
        (folder / SINGLE).write_bytes(content)
        with pytest.raises(LocalProtocolError, match=reason):
            load_pretrained(folder)
    (folder / SINGLE).unlink()
    (folder / INDEX).write_text('{"weight_map": {"model.norm.weight": "../x"}}')
    with pytest.raises(LocalProtocolError, match="no weight_map of files in this folder"):
        load_pretrained(folder)
    (folder / INDEX).unlink()
    with pytest.raises(LocalProtocolError, match="other formats are not read"):
        load_pretrained(folder)


def test_tokens_have_to_be_the_models(tmp_path: Path) -> None:
    """A dataset of bytes is refused for a checkpoint that has a tokenizer, and for one that knows fewer tokens."""
    folder = broken(tmp_path / "init")
    text = tmp_path / "text"
    text.mkdir()
    write_text(text)
    job = BuildRunJob(str(text), MODEL, 7, 4096, 4096, str(tmp_path / "run"), init=str(folder))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(LocalProtocolError, match="the dataset is of bytes; build one with --tokenizer"):
        run_job(job)
    (folder / "tokenizer.json").unlink()
    small = msgspec.structs.replace(MODEL, vocab_size=200)
    saved(small, tmp_path / "small", torch.float32)
    with pytest.raises(LocalProtocolError, match="it knows 200 tokens, the dataset has 256"):
        run_job(msgspec.structs.replace(job, init=str(tmp_path / "small")))
    assert len(load_pretrained(folder)[1]) == sum(int(np.prod(tensor.shape)) for tensor in model_tensors(MODEL))
