"""Activations that are computed twice instead of kept: the same training with either engine, and what is saved by it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions, Moments
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.manifest import ModelSpec, TrainingSpec

from .conftest import MODEL

TRAINING = TrainingSpec(inner_steps=3, batch_size=6, sequence_length=32, warmup_steps=1, learning_rate_ppb=1_000_000)
QWEN3 = msgspec.structs.replace(MODEL, architecture="qwen3", head_dim=16, tie_word_embeddings=True)
DEEP = msgspec.structs.replace(MODEL, num_hidden_layers=8, intermediate_size=128)


def windows(count: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.random.default_rng(5).integers(0, MODEL.vocab_size, (count, 33))


def trained(kind: EngineKind, spec: ModelSpec, *, checkpointing: bool) -> tuple[bytes, list[float], bytes, bytes]:
    """Parameters, losses and moments after three steps, of which each is made of batches of four and two windows."""
    start = initial_parameters(spec, 5)
    model, moments = (
        load_engine(kind).open_model(spec, start, EngineOptions(kind, checkpointing=checkpointing)),
        Moments.fresh(len(start)),
    )
    losses = model.inner_steps(windows(18), TRAINING, 0, moments, 4)
    return model.read().tobytes(), losses, moments.first.tobytes(), moments.second.tobytes()


@pytest.mark.parametrize("spec", [MODEL, QWEN3], ids=["llama", "qwen3"])
def test_activations_that_are_computed_again_are_the_same(kind: EngineKind, spec: ModelSpec) -> None:
    assert trained(kind, spec, checkpointing=True) == trained(kind, spec, checkpointing=False)


def test_what_is_measured_does_not_depend_on_it(kind: EngineKind) -> None:
    start = initial_parameters(MODEL, 5)
    plain, twice = (load_engine(kind).open_model(MODEL, start, EngineOptions(kind, checkpointing=option)) for option in (False, True))
    assert plain.window_losses(windows(6), 4).tobytes() == twice.window_losses(windows(6), 4).tobytes()


def test_pytorch_computes_them_again() -> None:
    """Otherwise it would save nothing."""
    pytest.importorskip("torch", reason="torch is not installed: THE ENGINE `pytorch` IS NOT TESTED")
    from nostrain.learning.engines.pytorch.model import TorchModel

    passes, start = [], initial_parameters(MODEL, 5)
    for checkpointing in (False, True):
        model, calls = load_engine("pytorch").open_model(MODEL, start, EngineOptions(checkpointing=checkpointing)), [0]
        assert isinstance(model, TorchModel)
        model.module.get_submodule("model.layers.0.mlp").register_forward_pre_hook(
            lambda *_, calls=calls: calls.__setitem__(0, calls[0] + 1)
        )
        model.inner_steps(windows(6), TRAINING, 0, Moments.fresh(len(start)))
        assert not model.module.training
        passes.append(calls[0])
    assert passes == [1, 2]


def test_mlx_needs_less_memory() -> None:
    """Eight layers of activations, or one and the inputs of the others: as mlx's allocator counts them."""
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed: THE ENGINE `mlx` IS NOT TESTED")
    peaks, start = [], initial_parameters(DEEP, 5)
    for checkpointing in (False, True):
        model = load_engine("mlx").open_model(DEEP, start, EngineOptions("mlx", checkpointing=checkpointing))
        mx.reset_peak_memory()
        model.inner_steps(windows(32), msgspec.structs.replace(TRAINING, batch_size=32), 0, Moments.fresh(len(start)))
        peaks.append(mx.get_peak_memory())
        del model
    assert peaks[1] < 0.6 * peaks[0]
