"""The model that stays between jobs: opened once, where each job wants it, and never a trace of the job before. On both engines."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.learning import resident as module
from nostrain.learning.dispatch import JobRunner, run_job
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import Engine, EngineOptions, Model
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import Job, JobResult, TrainResult, ValidationJob, ValidationResult
from nostrain.protocol.manifest import ModelSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.checkpoint import write_bytes, write_checkpoint

from .conftest import MODEL, TRAINING, SmallRun
from .jobs import Trained, aggregate_job, candidates, evaluate_job

LARGER = msgspec.structs.replace(MODEL, num_hidden_layers=3)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The models that are opened from now on."""
    models: list[object] = []

    def counted(kind: EngineKind) -> Engine:
        class Counting:
            def open_model(self, *arguments: Any) -> Model:
                models.append(load_engine(kind).open_model(*arguments))
                return models[-1]  # type: ignore[return-value]

        return Counting()  # type: ignore[return-value]

    monkeypatch.setattr(module, "load_engine", counted)
    return models


@lru_cache(maxsize=2)
def one_model(kind: EngineKind) -> Model:
    return load_engine(kind).open_model(MODEL, initial_parameters(MODEL, 9), EngineOptions(kind))


@settings(max_examples=25)
@given(data=st.data())
def test_whatever_is_replaced_comes_back_bit_for_bit(kind: EngineKind, data: st.DataObject) -> None:
    """Any indices, any values, numbers or not: parameters and losses are then the very same bits."""
    model = one_model(kind)
    before, windows = model.read().copy(), np.arange(33 * 2).reshape(2, 33)
    losses = model.window_losses(windows, 2)
    at = np.array(sorted(data.draw(st.sets(st.integers(0, len(before) - 1), max_size=40))), np.int32)
    bits = data.draw(st.lists(st.integers(0, (1 << 32) - 1), min_size=len(at), max_size=len(at)))
    values = np.array(bits, np.uint32).view(np.float32)
    kept = model.replace(at, values)
    assert kept.tobytes() == before[at].tobytes()
    assert model.read()[at].tobytes() == values.tobytes()
    model.window_losses(windows, 2)
    assert model.replace(at, kept).tobytes() == values.tobytes()
    assert model.read().tobytes() == before.tobytes()
    assert model.window_losses(windows, 2).tobytes() == losses.tobytes()


def perform(run: SmallRun, folder: Path, do: Callable[[Job], JobResult]) -> list[JobResult]:
    """What an engine is asked for in a round and at the start of the next; the results, without times."""
    folder.mkdir()
    results: list[JobResult] = []

    def get(job: Job) -> JobResult:
        result = do(job)
        results.append(msgspec.structs.replace(result, **{name: 0 for name in result.__struct_fields__ if name.endswith("_ms")}))
        return result

    held_out = ValidationJob(MODEL, run.checkpoint, run.validation, 32 * 10, 32, 8)
    get(held_out)
    made = Trained(folder, tuple(get(run.train_job(folder, slot)) for slot in range(3)))  # type: ignore[misc]
    get(evaluate_job(run, candidates(run, made)))
    after = str(folder / "next")
    get(aggregate_job(run, made, folder / "next"))
    get(msgspec.structs.replace(held_out, checkpoint=after))
    later = run.train_job(folder, 0, str(folder / "0.state"), TRAINING.inner_steps)
    get(msgspec.structs.replace(later, checkpoint=after, state_out=str(folder / "later")))
    get(msgspec.structs.replace(evaluate_job(run, candidates(run, made)), checkpoint=after))
    get(held_out)  # back to where it began: a validator that was late
    return results


def test_jobs_one_after_the_other_are_the_jobs_by_themselves(
    kind: EngineKind, small_run: SmallRun, tmp_path: Path, opened: list[object]
) -> None:
    """Results and files: one model opened for all of them, and no bit differs."""
    options = EngineOptions(kind)
    alone = perform(small_run, tmp_path / "alone", lambda job: run_job(job, options))
    assert len(opened) == 9
    opened.clear()
    together = perform(small_run, tmp_path / "together", JobRunner(options).run)
    assert together == alone
    assert len(opened) == 1
    files = sorted(path.name for path in (tmp_path / "alone").iterdir())
    assert len(files) == 8
    for name in files:
        assert (tmp_path / "together" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


def test_what_breaks_a_job_is_gone_with_it(kind: EngineKind, small_run: SmallRun, tmp_path: Path, opened: list[object]) -> None:
    """Training that diverges leaves parameters that are no numbers: nobody gets to see them."""
    runner, honest = JobRunner(EngineOptions(kind)), small_run.train_job(tmp_path)
    expected = runner.run(honest)
    wild = msgspec.structs.replace(honest, training=msgspec.structs.replace(TRAINING, learning_rate_ppb=10**30))
    with pytest.raises(LocalProtocolError, match="diverged"):
        runner.run(wild)
    again = runner.run(honest)
    assert isinstance(expected, TrainResult)
    assert isinstance(again, TrainResult)
    assert again.delta == expected.delta
    assert len(opened) == 2


def test_another_file_or_another_model_is_noticed(kind: EngineKind, small_run: SmallRun, tmp_path: Path, opened: list[object]) -> None:
    """One path, one after the other: a checkpoint, its successor renamed over it, something that is none, and one of a larger model."""
    runner, path = JobRunner(EngineOptions(kind)), tmp_path / "checkpoint"

    def loss(model: ModelSpec = MODEL) -> int:
        job = ValidationJob(model, str(path), small_run.validation, 32 * 10, 32, 8)
        result, fresh = runner.run(job), run_job(job, EngineOptions(kind))
        opened.pop()
        assert isinstance(result, ValidationResult)
        assert isinstance(fresh, ValidationResult)
        assert result.loss_nanonats == fresh.loss_nanonats
        return result.loss_nanonats

    losses = set()
    for seed in (1, 2):
        write_checkpoint(path, model_tensors(MODEL), initial_parameters(MODEL, seed))
        losses.add(loss())
    assert len(losses) == 2
    assert len(opened) == 1
    write_bytes(path, b"no checkpoint")
    with pytest.raises(RemoteProtocolError, match="checkpoint"):
        runner.run(ValidationJob(MODEL, str(path), small_run.validation, 32 * 10, 32, 8))
    write_checkpoint(path, model_tensors(LARGER), initial_parameters(LARGER, 1))
    loss(LARGER)
    assert len(opened) == 2
