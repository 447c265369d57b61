"""Evaluation in too little memory: smaller passes give the same scores but for rounding, and what one window takes is known before a run is joined."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.learning import resident
from nostrain.learning.dispatch import JobRunner
from nostrain.learning.engines.base import EngineOptions
from nostrain.learning.memory import EvaluationBatch
from nostrain.protocol.footprint import evaluation_bytes, evaluation_needs
from nostrain.protocol.jobs import EvaluateResult, ValidationJob, ValidationResult
from nostrain.protocol.manifest import CodecSpec, ModelSpec
from nostrain.sparseloco.checkpoint import map_checkpoint_untrusted

from .conftest import MODEL, SmallRun
from .jobs import Trained, candidates, evaluate_job

pytest.importorskip("torch", reason="torch is not installed: THE ENGINE `pytorch` IS NOT TESTED")


@pytest.fixture(scope="module")
def offered(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("deltas")
    runner = JobRunner()
    for slot in range(3):
        runner.run(small_run.train_job(folder, slot))
    return Trained(folder, ())


def cramped(monkeypatch: pytest.MonkeyPatch, room: int) -> list[int]:
    """A device with room for `room` windows at once; how many it was asked for, pass by pass."""
    from nostrain.learning.engines.pytorch import model

    measured, asked = model.token_losses, list[int]()

    def losses(forward: Any, windows: Any) -> Any:
        asked.append(len(windows))
        if len(windows) > room:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes.")
        return measured(forward, windows)

    monkeypatch.setattr(model, "token_losses", losses)
    return asked


def test_out_of_memory_halves_the_passes_and_the_scores_stay(
    small_run: SmallRun, offered: Trained, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    job = evaluate_job(small_run, candidates(small_run, offered))
    expected = JobRunner().run(job)
    assert isinstance(expected, EvaluateResult)
    assert job.scoring.eval_batch == 4
    asked, runner = cramped(monkeypatch, room=1), JobRunner()
    scored = runner.run(job)
    assert isinstance(scored, EvaluateResult)
    assert asked[:2] == [4, 2]
    assert set(asked[2:]) == {1}
    assert "out of memory with 2 windows at once; going on with 1" in capfd.readouterr().err
    assert len(scored.losses_before) == len(expected.losses_before), "still of whole batches"
    np.testing.assert_allclose(scored.losses_before, expected.losses_before, atol=2_000)
    for one, other in zip(scored.scores, expected.scores, strict=True):
        assert abs(one.gain - other.gain) < 2_000
        assert (one.weight, one.overlap_round_ppm) == (other.weight, other.overlap_round_ppm)
    asked.clear()
    loss = runner.run(ValidationJob(MODEL, small_run.checkpoint, small_run.validation, 256, 32, 4))
    assert isinstance(loss, ValidationResult)
    assert set(asked) == {1}, "what was too much is not tried again"


def test_one_window_that_is_too_much_is_said(small_run: SmallRun, offered: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = cramped(monkeypatch, room=0)
    with pytest.raises(MemoryError, match="can't allocate"):
        JobRunner().run(evaluate_job(small_run, candidates(small_run, offered)))
    assert asked == [4, 2, 1]


def test_a_machine_that_knows_its_memory_does_not_try_what_cannot_fit(
    small_run: SmallRun, offered: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = cramped(monkeypatch, room=99)
    JobRunner(EngineOptions(memory_mb=1)).run(evaluate_job(small_run, candidates(small_run, offered)))
    assert set(asked) == {1}


def test_the_file_s_values_are_gone_when_the_model_is_open(small_run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as much as the model; nobody may keep them through the job that opened it."""
    read: list[weakref.ref[Any]] = []

    def watched(*arguments: Any, **options: Any) -> Any:
        flat = map_checkpoint_untrusted(*arguments, **options)
        read.append(weakref.ref(flat))
        return flat

    monkeypatch.setattr(resident, "map_checkpoint_untrusted", watched)
    with resident.ResidentModel(EngineOptions()).at(MODEL, small_run.checkpoint):
        gc.collect()
        assert [one() for one in read] == [None]


@given(batch=st.integers(1, 300), room=st.integers(0, 300))
def test_passes_are_halved_until_they_fit(batch: int, room: int) -> None:
    size = EvaluationBatch(memory=max(1, room)).size(batch, lambda windows: windows)
    assert 1 <= size <= batch
    assert size == 1 or size <= room
    assert size == batch or 2 * size + 1 > room
    assert EvaluationBatch().size(batch, lambda windows: windows) == batch


def test_the_estimate_grows_with_everything_that_is_held(small_run: SmallRun) -> None:
    smol = ModelSpec(576, 1536, 30, 9, 3, 49_152, 2048, tie_word_embeddings=True)
    base = evaluation_bytes(smol, CodecSpec(), 4096, 8)
    assert evaluation_bytes(smol, CodecSpec(), 8192, 8) > base
    assert evaluation_bytes(smol, CodecSpec(topk=128), 4096, 20) > evaluation_bytes(smol, CodecSpec(), 4096, 20) > base
    manifest = small_run.manifest(1)
    least, most = evaluation_needs(manifest)
    assert 512 << 20 < least < most < 640 << 20
    assert evaluation_needs(msgspec.structs.replace(manifest, model=smol))[0] > 1536 << 20
