"""How fast a machine trains, measured: it says something, and leaves nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nostrain.errors import LocalProtocolError
from nostrain.learning.dispatch import JobRunner
from nostrain.learning.engines.base import EngineOptions
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import CalibrateJob, CalibrateResult

from .conftest import MODEL, TRAINING, SmallRun

JOB = CalibrateJob(MODEL, TRAINING)


def measured(runner: JobRunner, job: CalibrateJob = JOB) -> CalibrateResult:
    result = runner.run(job)
    assert isinstance(result, CalibrateResult)
    return result


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Every look at the clock costs so long."""
    passed = iter(range(1_000_000))
    monkeypatch.setattr(time, "perf_counter", lambda: next(passed) * seconds)


def trained(runner: JobRunner, small_run: SmallRun, folder: Path) -> list[bytes]:
    """Two rounds' files."""
    folder.mkdir()
    first = small_run.train_job(folder)
    second = small_run.train_job(folder, slot=1, state_in=first.state_out, steps_done=4)
    for job in (first, second):
        runner.run(job)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_training_is_bit_for_bit_what_it_is_without(kind: EngineKind, small_run: SmallRun, tmp_path: Path) -> None:
    """Measured first, as a newcomer is, or in between, as on another machine."""
    options = EngineOptions(kind)
    expected = trained(JobRunner(options), small_run, tmp_path / "without")
    runner = JobRunner(options)
    assert measured(runner).tokens > 0
    assert trained(runner, small_run, tmp_path / "after") == expected
    measured(runner)
    assert trained(runner, small_run, tmp_path / "again") == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after", "again", "without"]


def test_what_is_counted_is_what_was_trained(kind: EngineKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 2 windows of 32 tokens; the first step warms up."""
    ticking(monkeypatch, 0.25)
    assert measured(JobRunner(EngineOptions(kind))) == CalibrateResult(4 * 64, 1000)
    ticking(monkeypatch, 0.001)
    assert measured(JobRunner(EngineOptions(kind))) == CalibrateResult(8 * 64, 8)


def test_a_slow_machine_takes_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch, 70.0)
    assert measured(JobRunner()) == CalibrateResult(64, 70_000)
    ticking(monkeypatch, 70.0)
    assert measured(JobRunner(EngineOptions(micro_batch=1))) == CalibrateResult(32, 70_000)


def test_out_of_memory_is_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    from nostrain.learning.engines.pytorch import model

    measure, asked = model.token_losses, list[int]()

    def losses(forward: Any, windows: Any) -> Any:
        asked.append(len(windows))
        if len(windows) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return measure(forward, windows)

    monkeypatch.setattr(model, "token_losses", losses)
    runner = JobRunner()
    assert measured(runner, msgspec.structs.replace(JOB, training=msgspec.structs.replace(TRAINING, batch_size=8))).tokens % 64 == 0
    assert asked[:3] == [8, 4, 2]


def test_a_run_that_cannot_be_trained_says_so() -> None:
    wild = msgspec.structs.replace(TRAINING, learning_rate_ppb=10**30)
    with pytest.raises(LocalProtocolError, match="not finite"):
        JobRunner().run(msgspec.structs.replace(JOB, training=wild))
