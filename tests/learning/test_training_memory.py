"""A worker holds five vectors as long as its model, and what it computes with them is what it would compute with more."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from nostrain.learning import resident
from nostrain.learning.dispatch import JobRunner
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions, Flat, Moments, Windows
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import OwnStep, TrainJob, TrainResult
from nostrain.protocol.manifest import CodecSpec, ModelSpec, OuterSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors, parameter_count
from nostrain.sparseloco.aggregate import cap_weights, outer_step
from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted, write_checkpoint
from nostrain.sparseloco.codec import compress, decode_untrusted
from nostrain.sparseloco.rules import plan_step

MODEL = ModelSpec(256, 768, 2, 4, 4, 256, 32)
VECTOR = 4 * parameter_count(MODEL)
TRAINING = TrainingSpec(inner_steps=2, batch_size=1, sequence_length=16)
DECAY = np.float32(0.95)


class Numpy:
    """`base.Model` whose inner steps are a fixed random walk, with a gradient as long as the model. All of its memory is numpy's, which can be counted."""

    def __init__(self, flat: Flat) -> None:
        self.flat = np.array(flat)

    def read(self) -> Flat:
        return self.flat

    def inner_steps(self, windows: Windows, training: TrainingSpec, steps_done: int, moments: Moments, micro_batch: int = 0) -> list[float]:
        gradient = walk(steps_done)
        for changed in (self.flat, moments.first, moments.second):
            np.subtract(changed, gradient, out=changed)
        moments.steps += training.inner_steps
        return [2.0, 1.0]

    def window_losses(self, windows: Windows, batch: int) -> NDArray[np.float64]:
        raise AssertionError("training measures no losses")

    def write(self, flat: Flat) -> None:
        self.flat[:] = flat

    def replace(self, indices: NDArray[np.signedinteger[Any]], values: Flat) -> Flat:
        raise AssertionError("training writes nothing by index")


def walk(seed: int) -> Flat:
    gradient = np.random.default_rng(seed).standard_normal(parameter_count(MODEL), np.float32)
    gradient *= np.float32(1e-3)
    return gradient


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> JobRunner:
    class Engine:
        def open_model(self, spec: ModelSpec, flat: Flat, options: EngineOptions) -> Numpy:
            return Numpy(flat)

    monkeypatch.setattr(resident, "load_engine", lambda kind: Engine())
    return JobRunner()


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    """The second round's."""
    shard, checkpoint, state = tmp_path / "shard", tmp_path / "model", tmp_path / "state"
    shard.write_bytes(bytes(range(256)))
    compress(model_tensors(MODEL), CodecSpec(), initial_parameters(MODEL, 1))  # makes the tables that a process has once
    write_checkpoint(checkpoint, model_tensors(MODEL), initial_parameters(MODEL, 1))
    out = str(tmp_path / "delta"), str(tmp_path / "after")
    first = TrainJob(MODEL, TRAINING, CodecSpec(), str(checkpoint), str(shard), "11" * 32, 0, None, str(tmp_path / "own"), str(state))
    return msgspec.structs.replace(first, steps_done=2, state_in=str(state), delta_out=out[0], state_out=out[1])


def first_of(job: TrainJob) -> TrainJob:
    folder = Path(job.checkpoint).parent
    return msgspec.structs.replace(job, steps_done=0, state_in=None, delta_out=str(folder / "own"), state_out=job.state_in)


def peak(work: Callable[[], Any]) -> int:
    """The most bytes that `work` held at a time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_worker_holds_five_vectors_at_most(runner: JobRunner, job: TrainJob) -> None:
    """From opening the model to writing the state, in a first round, in a later one, and from a step of its own. Pages of files do not count."""
    assert peak(lambda: runner.run(first_of(job))) < 5 * VECTOR
    assert peak(lambda: runner.run(job)) < 5 * VECTOR
    own = OwnStep(OuterSpec(), sent(runner, first_of(job)), first_of(job).delta_out, 1)
    assert peak(lambda: runner.run(msgspec.structs.replace(job, own=own))) < 5 * VECTOR


def sent(runner: JobRunner, job: TrainJob) -> Any:
    result = runner.run(job)
    assert isinstance(result, TrainResult)
    return result.delta.sha256


@pytest.mark.parametrize("ahead", [False, True])
def test_delta_and_state_are_those_of_the_equations(runner: JobRunner, job: TrainJob, ahead: bool) -> None:
    """Algorithm 1 written down with whole vectors: start less end, residual · 0.95 in addition, what was sent subtracted."""
    tensors, codec, size = model_tensors(MODEL), job.codec, parameter_count(MODEL)
    start = initial_parameters(MODEL, 1)
    first = sent(runner, first_of(job))
    if ahead:
        delta = decode_untrusted(Path(first_of(job).delta_out).read_bytes(), tensors, codec)
        job = msgspec.structs.replace(job, own=OwnStep(OuterSpec(), first, first_of(job).delta_out, 2))
        start = outer_step(start, [delta], plan_step(cap_weights([delta]), OuterSpec(), 2))
    digest = sent(runner, job)
    before = np.fromfile(first_of(job).state_out, "<f4")[-3 * size - 1 :]
    total = before[2 * size : 3 * size] * DECAY + (start - (start - walk(2)))
    blob, carried = compress(tensors, codec, total)
    assert Path(job.delta_out).read_bytes() == blob
    total[carried.indices] -= carried.values()
    after = np.fromfile(job.state_out, "<f4")[-3 * size - 1 :]
    expected = np.concatenate([before[:size] - walk(2), before[size : 2 * size] - walk(2), total, [np.float32(4)]])
    assert after.tobytes() == expected.tobytes()
    assert digest != first
    assert np.array_equal(load_checkpoint_untrusted(job.checkpoint, tensors), initial_parameters(MODEL, 1))


LARGE = ModelSpec(512, 1536, 3, 8, 8, 256, 32)
"""Of 9.7 million parameters: so large that the C library takes each vector from the system, and gives it back."""


@pytest.fixture
def resident_peak() -> Callable[[Callable[[], Any]], int]:
    """As `peak`, as the kernel counts it: frameworks have allocators of their own."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        clear.write_text("5")
    except OSError:
        pytest.skip("this system does not tell the peak of a process's memory: WHAT ENGINES HOLD IS NOT TESTED")

    def now(name: str) -> int:
        return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith(name))

    def measured(work: Callable[[], Any]) -> int:
        before = now("VmRSS:")
        clear.write_text("5")
        work()
        return now("VmHWM:") - before

    return measured


def test_an_engine_trains_with_one_vector_more(kind: EngineKind, resident_peak: Callable[[Callable[[], Any]], int]) -> None:
    """The gradient, besides parameters and moments; an optimizer's intermediate results are never there as a whole."""
    count, windows = parameter_count(LARGE), np.zeros((1, 9), np.int64)
    model = load_engine(kind).open_model(LARGE, initial_parameters(LARGE, 1), EngineOptions(kind))
    moments = Moments(np.full(count, 1e-3, np.float32), np.full(count, 1e-3, np.float32), 1)
    model.inner_steps(windows, msgspec.structs.replace(TRAINING, batch_size=1), 0, moments)
    grown = resident_peak(lambda: model.inner_steps(np.repeat(windows, 2, axis=0), TRAINING, 1, moments))
    assert grown < 1.75 * 4 * count, f"{grown / 4 / count:.2f} vectors"
