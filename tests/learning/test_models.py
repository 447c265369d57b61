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
from nostrain.learning.engines.pytorch.families import build_module
from nostrain.learning.engines.pytorch.model import TorchModel, tensor_specs
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.hf_config import config_json, hf_config, model_spec
from nostrain.protocol.manifest import RopeScaling
from nostrain.protocol.tensors import model_tensors, parameter_count
from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted, write_checkpoint
from nostrain.sparseloco.layout import tensor_sizes
from nostrain.units import PPM

from .conftest import MODEL, SmallRun

TIED = msgspec.structs.replace(MODEL, tie_word_embeddings=True)


def opened(small_run: SmallRun) -> TorchModel:
    import torch

    return TorchModel(MODEL, load_checkpoint_untrusted(small_run.checkpoint, model_tensors(MODEL)), torch.device("cpu"))


FAMILIES = {
    "llama": MODEL,
    "tied": TIED,
    "deep": msgspec.structs.replace(MODEL, num_hidden_layers=12),
    "biased throughout": msgspec.structs.replace(MODEL, attention_bias=True, mlp_bias=True),
    "biased": msgspec.structs.replace(MODEL, attention_bias=True, rms_norm_eps_ppb=10_000),
    "llama3": msgspec.structs.replace(
        MODEL, head_dim=12, rope_theta=500_000, rope_scaling=RopeScaling(8 * PPM, PPM, 4 * PPM, 16), tie_word_embeddings=True
    ),
    "qwen2": msgspec.structs.replace(MODEL, architecture="qwen2", rope_theta=1_000_000),
    "qwen3": msgspec.structs.replace(MODEL, architecture="qwen3", head_dim=16, tie_word_embeddings=True),
    "qwen3 biased": msgspec.structs.replace(MODEL, architecture="qwen3", attention_bias=True),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tensors_are_those_of_transformers(family: str) -> None:
    spec = FAMILIES[family]
    assert model_tensors(spec) == tensor_specs(build_module(spec))
    assert parameter_count(spec) == sum(tensor_sizes(model_tensors(spec)))


@pytest.mark.parametrize("family", ["llama", "biased", "llama3", "qwen2", "qwen3"])
def test_transformers_opens_an_exported_folder_with_the_same_logits(family: str, tmp_path: Path) -> None:
    """Biases and norms are drawn, too: otherwise nobody would notice that one is not used."""
    import torch
    from transformers import AutoModelForCausalLM

    spec = FAMILIES[family]
    flat = initial_parameters(spec, 3) + np.random.default_rng(3).normal(0, 0.2, parameter_count(spec)).astype(np.float32)
    write_checkpoint(tmp_path / "model.safetensors", model_tensors(spec), flat)
    (tmp_path / "config.json").write_text(config_json(spec))
    theirs, loading = AutoModelForCausalLM.from_pretrained(tmp_path, local_files_only=True, output_loading_info=True)
    assert not any(loading.values()), loading
    tokens = torch.arange(64).view(2, 32)
    with torch.inference_mode():
        ours = TorchModel(spec, flat, torch.device("cpu")).module(input_ids=tokens).logits
        assert torch.equal(theirs(input_ids=tokens).logits, ours)
    assert theirs.dtype == torch.float32
    written = msgspec.json.decode(theirs.config.to_json_string(use_diff=False))
    assert model_spec(written) == model_spec(hf_config(spec)) == msgspec.structs.replace(spec, head_dim=spec.head_size)


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
    at = np.arange(0, len(before), 7, dtype=np.int32)
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
