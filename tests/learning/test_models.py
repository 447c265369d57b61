"""The models themselves: tensors and logits as transformers has them, initial values, an engine's promises (`engines.base.Model`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest

from nostrain.errors import ConfigError, LocalProtocolError
from nostrain.learning.dispatch import run_job
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions
from nostrain.learning.engines.pytorch.engine import pick_device
from nostrain.learning.engines.pytorch.model import TorchModel, build_module, tensor_specs
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.tensors import model_tensors

from .conftest import MODEL, SmallRun

TIED = msgspec.structs.replace(MODEL, tie_word_embeddings=True)


def opened(small_run: SmallRun) -> TorchModel:
    import torch

    from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted

    return TorchModel(MODEL, load_checkpoint_untrusted(small_run.checkpoint, small_run.result.tensors), torch.device("cpu"))


@pytest.mark.parametrize("spec", [MODEL, TIED, msgspec.structs.replace(MODEL, num_hidden_layers=12)])
def test_the_tensors_are_those_of_transformers(spec: object) -> None:
    assert isinstance(spec, type(MODEL))
    assert model_tensors(spec) == tensor_specs(build_module(spec))


def test_transformers_opens_the_checkpoint_with_the_same_logits(small_run: SmallRun) -> None:
    import torch
    from transformers import LlamaForCausalLM

    folder = Path(small_run.checkpoint).parent
    theirs = LlamaForCausalLM.from_pretrained(folder, local_files_only=True)
    tokens = torch.arange(64).view(2, 32)
    with torch.inference_mode():
        assert torch.equal(theirs(input_ids=tokens).logits, opened(small_run).module(input_ids=tokens).logits)
    assert theirs.dtype == torch.float32
    config = msgspec.json.decode((folder / "config.json").read_bytes())
    assert (config["rope_theta"], config["rope_parameters"]["rope_theta"]) == (10_000.0, 10_000.0)


def test_tied_embeddings_are_one_tensor() -> None:
    import torch

    assert not any(tensor.name == "lm_head.weight" for tensor in model_tensors(TIED))
    model = TorchModel(TIED, initial_parameters(TIED, 1), torch.device("cpu"))
    model.replace(np.arange(len(model.read())), np.zeros(len(model.read()), np.float32))
    assert not model.module.get_parameter("model.embed_tokens.weight").detach().any()
    assert not model.module.get_submodule("lm_head").weight.detach().any()  # type: ignore[union-attr]


def test_initial_parameters_follow_the_seed() -> None:
    one, same, other = (initial_parameters(MODEL, seed) for seed in (1, 1, 2))
    assert one.tobytes() == same.tobytes()
    assert one.tobytes() != other.tobytes()
    assert np.isfinite(one).all()
    assert 0.019 < one[one != 1].std() < 0.021
    norms = sum(tensor.shape[0] for tensor in model_tensors(MODEL) if len(tensor.shape) == 1)
    assert np.count_nonzero(one == 1) == norms


def test_what_is_replaced_and_put_back_is_the_same_bit_for_bit(small_run: SmallRun) -> None:
    model = opened(small_run)
    before, windows = model.read().copy(), np.arange(33 * 3).reshape(3, 33)
    losses = model.window_losses(windows, 2)
    at = np.arange(0, len(before), 7, np.int32)
    kept = model.replace(at, np.full(len(at), 0.5, np.float32))
    assert (model.read()[at] == 0.5).all()
    assert (model.window_losses(windows, 2) != losses).all()
    model.replace(at, kept)
    assert model.read().tobytes() == before.tobytes()
    assert model.window_losses(windows, 2).tobytes() == losses.tobytes()


def test_a_vector_of_another_model_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="not those of the model"):
        load_engine("pytorch").open_model(MODEL, initial_parameters(TIED, 1), EngineOptions())


def test_an_engine_or_a_device_that_is_not_there_is_named(
    small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(load_engine.cache_clear)
    for kind in get_args(EngineKind):
        load_engine.cache_clear()
        monkeypatch.setitem(sys.modules, f"nostrain.learning.engines.{kind}.engine", None)
        with pytest.raises(ConfigError, match=rf"engine\.kind = '{kind}': is not installed"):
            run_job(small_run.train_job(tmp_path), EngineOptions(kind))
    with pytest.raises(ConfigError, match=r"engine\.device = 'gpu': pytorch finds only"):
        pick_device("gpu")
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
