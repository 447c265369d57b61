"""A batch in parts, and what happens when memory runs out: what `base.Model` promises, of both engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nostrain.learning.dispatch import JobRunner, run_job
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions, Flat, Moments
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import TrainResult
from nostrain.protocol.manifest import TrainingSpec

from .conftest import MODEL, SmallRun
from .conftest import TRAINING as SMALL

TRAINING = TrainingSpec(inner_steps=3, batch_size=6, sequence_length=32, warmup_steps=1, learning_rate_ppb=1_000_000)
START = initial_parameters(MODEL, 5)
WINDOWS = np.random.default_rng(5).integers(0, 256, (18, 33))


@dataclass(frozen=True)
class Trained:
    """Three steps of six windows."""

    parameters: Flat
    losses: list[float]
    moments: Moments

    @classmethod
    def by(cls, kind: EngineKind, micro_batch: int = 0) -> Trained:
        model, moments = load_engine(kind).open_model(MODEL, START, EngineOptions(kind)), Moments.fresh(len(START))
        losses = model.inner_steps(WINDOWS, TRAINING, 0, moments, micro_batch)
        return cls(model.read().copy(), losses, moments)


def assert_same_but_for_rounding(one: Trained, other: Trained) -> None:
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-6)
    np.testing.assert_allclose(one.moments.first, other.moments.first, rtol=1e-3, atol=1e-7)
    # Adam divides by the root of a gradient's square: where that is all rounding, a step may go either way.
    assert np.quantile(np.abs(one.parameters - other.parameters), 0.999) < 1e-5


@pytest.mark.parametrize("micro_batch", [1, 4, 6, 100])
def test_a_batch_in_parts_is_the_same_batch(kind: EngineKind, micro_batch: int) -> None:
    whole, parts = Trained.by(kind), Trained.by(kind, micro_batch)
    assert_same_but_for_rounding(parts, whole)
    assert (parts.parameters.tobytes() == whole.parameters.tobytes()) is (micro_batch >= TRAINING.batch_size)
    assert parts.moments.steps == 3


def test_parts_are_the_same_in_both_engines() -> None:
    pytest.importorskip("mlx.core", reason="mlx is not installed: THE ENGINE `mlx` IS NOT TESTED")
    one, other = Trained.by("pytorch", 4), Trained.by("mlx", 4)
    np.testing.assert_allclose(one.losses, other.losses, atol=1e-5)
    np.testing.assert_allclose(one.moments.first, other.moments.first, atol=1e-5 * np.abs(one.moments.first).max())


def torch_is_full(room: int, asked: list[int]) -> Callable[..., Any]:
    import torch

    from nostrain.learning.engines.pytorch import model

    measured = model.token_losses

    def losses(forward: Callable[..., Any], windows: torch.Tensor) -> torch.Tensor:
        asked.append(len(windows))
        if len(windows) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return measured(forward, windows)

    return losses


def mlx_is_full(room: int, asked: list[int]) -> Callable[..., Any]:
    from nostrain.learning.engines.mlx.network import Network

    measured = Network.token_losses

    def losses(network: Network, tensors: Any, windows: Any) -> Any:
        asked.append(len(windows))
        if len(windows) > room:
            raise RuntimeError("[malloc] Unable to allocate 2147483648 bytes.")
        return measured(network, tensors, windows)

    return losses


def test_out_of_memory_halves_the_micro_batch_and_the_round_goes_on(
    kind: EngineKind, small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The framework's own error, where a device has room for three windows of eight."""
    job = msgspec.structs.replace(small_run.train_job(tmp_path), training=msgspec.structs.replace(SMALL, batch_size=8))
    roomy = msgspec.structs.replace(job, delta_out=str(tmp_path / "roomy.delta"), state_out=str(tmp_path / "roomy.moments"))
    expected = run_job(roomy, EngineOptions(kind, micro_batch=2))
    assert isinstance(expected, TrainResult)
    asked: list[int] = []
    if kind == "pytorch":
        monkeypatch.setattr("nostrain.learning.engines.pytorch.model.token_losses", torch_is_full(3, asked))
    else:
        monkeypatch.setattr("nostrain.learning.engines.mlx.network.Network.token_losses", mlx_is_full(3, asked))
    runner = JobRunner(EngineOptions(kind))
    made = runner.run(job)
    assert isinstance(made, TrainResult)
    assert asked[:3] == [8, 4, 2]
    assert made.delta == expected.delta, "as if it had been two from the start"
    assert "out of memory with 4 windows at once; going on with 2" in capfd.readouterr().err
    asked.clear()
    runner.run(job)
    assert set(asked) == {2}, "what was too much is not tried again"


@pytest.mark.parametrize(
    "said",
    [
        "[malloc] Unable to allocate 17179869184 bytes.",
        "[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum allowed buffer size of 8 bytes.",
        "[metal::malloc] Resource limit (499000) exceeded.",
        "[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory).",
    ],
)
def test_what_mlx_says_of_memory_is_a_memory_error(said: str) -> None:
    pytest.importorskip("mlx.core", reason="mlx is not installed: THE ENGINE `mlx` IS NOT TESTED")
    from nostrain.learning.engines.mlx.memory import memory_errors

    with pytest.raises(MemoryError), memory_errors():
        raise RuntimeError(said)


def test_other_errors_of_mlx_stay_what_they_are() -> None:
    mx = pytest.importorskip("mlx.core", reason="mlx is not installed: THE ENGINE `mlx` IS NOT TESTED")
    from nostrain.learning.engines.mlx.memory import memory_errors

    with pytest.raises(ValueError, match="shape"), memory_errors():
        mx.zeros((2, 3)).reshape(7)
    with pytest.raises(RuntimeError, match="kernel"), memory_errors():
        raise RuntimeError("[METAL] Command buffer execution failed: kernel fault")
