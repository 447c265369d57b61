"""Every job on a small model: what it writes, that it repeats bit for bit, and what bad files do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.learning import reference
from nostrain.learning.dispatch import run_job
from nostrain.learning.reference import ReferenceSpec, RoundSpec, RoundState
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.jobs import (
    InspectJob,
    InspectResult,
    TrainResult,
    ValidationJob,
)
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted, write_bytes
from nostrain.units import Digest
from tests.learning.jobs import NAMES, Trained, aggregate_job, aggregated, candidates, evaluate_job, evaluated, validation_loss

from .conftest import MODEL, SCORING, TRAINING, WORKERS, SmallRun


@pytest.fixture(scope="module")
def trained(small_run: SmallRun, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("round")
    results = []
    for slot in range(WORKERS):
        result = run_job(small_run.train_job(folder, slot))
        assert isinstance(result, TrainResult)
        results.append(result)
    return Trained(folder, tuple(results))


def test_training_repeats_bit_for_bit(small_run: SmallRun, trained: Trained, tmp_path: Path) -> None:
    again = run_job(small_run.train_job(tmp_path))
    assert isinstance(again, TrainResult)
    assert again.delta == trained.results[0].delta
    assert (tmp_path / "0.state").read_bytes() == (trained.folder / "0.state").read_bytes()
    assert sha256_hex(Path(trained.delta(0)).read_bytes()) == again.delta.sha256
    assert again.loss_last_nanonats < again.loss_first_nanonats
    assert again.tokens == 4 * 2 * 32


def test_a_kept_state_changes_the_next_delta(small_run: SmallRun, trained: Trained, tmp_path: Path) -> None:
    fresh = run_job(small_run.train_job(tmp_path, steps_done=4))
    kept = run_job(small_run.train_job(tmp_path, state_in=str(trained.folder / "0.state"), steps_done=4))
    assert isinstance(fresh, TrainResult)
    assert isinstance(kept, TrainResult)
    assert fresh.delta != kept.delta


def test_without_the_private_files_of_earlier_rounds_training_begins_afresh_and_says_so(small_run: SmallRun, tmp_path: Path) -> None:
    """A disk that was lost or damaged costs learning, not the run: the delta is the one of a worker that begins."""
    fresh = run_job(small_run.train_job(tmp_path, steps_done=4))
    assert isinstance(fresh, TrainResult)
    assert fresh.lost == ()
    damaged = tmp_path / "damaged"
    damaged.write_bytes((tmp_path / "0.state").read_bytes()[:-4])
    for path in (str(tmp_path / "gone"), str(damaged), small_run.checkpoint):
        again = run_job(small_run.train_job(tmp_path, state_in=path, steps_done=4))
        assert isinstance(again, TrainResult)
        assert again.delta == fresh.delta
        (line,) = again.lost
        assert line.startswith(f"residual and moments {path}: ")


def test_a_private_file_that_cannot_be_read_now_is_not_lost(small_run: SmallRun, tmp_path: Path) -> None:
    """Whatever else a disk says may pass: the job is run again."""
    with pytest.raises(IsADirectoryError):
        run_job(small_run.train_job(tmp_path, state_in=str(tmp_path)))


def test_workers_gain_and_their_scores_are_complete(small_run: SmallRun, trained: Trained) -> None:
    result = evaluated(evaluate_job(small_run, candidates(small_run, trained)))
    assert [score.worker for score in result.scores] == list(NAMES)
    assert len(result.losses_before) == math.ceil(10 / SCORING.eval_batch)
    for score in result.scores:
        assert score.error is None
        assert score.gain > 0
        assert 0 < score.weight <= 65536
        assert score.provenance_se > 0
        assert 0 < score.overlap_round_ppm < 1_000_000
        assert score.overlap_ppm == 0
        mean_difference = sum(result.losses_before) - sum(score.losses_after)
        assert score.gain == mean_difference // len(result.losses_before)


def test_scores_do_not_depend_on_who_came_before(small_run: SmallRun, trained: Trained) -> None:
    """The delta of each candidate is undone bit by bit, so the order of the candidates leaves no trace."""
    offered = candidates(small_run, trained)
    forward, backward = evaluated(evaluate_job(small_run, offered)), evaluated(evaluate_job(small_run, offered[::-1]))
    gains = [(score.gain, score.losses_after, score.weight) for score in forward.scores]
    assert gains == [(score.gain, score.losses_after, score.weight) for score in backward.scores[::-1]]


def test_garbage_is_a_score_with_an_error(small_run: SmallRun, trained: Trained, tmp_path: Path) -> None:
    honest = candidates(small_run, trained)
    blob = bytearray(Path(trained.delta(1)).read_bytes())
    blob[20] ^= 0xFF
    write_bytes(tmp_path / "garbage", b"\xff" * len(blob))
    write_bytes(tmp_path / "short", b"no delta at all")
    write_bytes(tmp_path / "bent", bytes(blob))
    bad = [msgspec.structs.replace(honest[1], delta=str(tmp_path / name)) for name in ("garbage", "short", "bent")]
    result = evaluated(evaluate_job(small_run, (honest[0], *bad, honest[2])))
    reasons = [score.error for score in result.scores]
    assert reasons[0] is reasons[4] is None
    assert reasons[1] == "delta: the header is not one of this run"
    assert reasons[2] is not None
    assert reasons[2].startswith("delta: 15 bytes cannot be a delta of this run")
    assert reasons[3] is not None
    alone = evaluated(evaluate_job(small_run, (honest[0], honest[2])))
    assert (result.scores[0], result.scores[4]) == alone.scores


def test_a_step_that_breaks_the_model_is_a_score_with_an_error(
    small_run: SmallRun, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses that are no numbers refuse the one candidate, and leave the others' scores and the engine alone."""
    from nostrain.learning import evaluate as module

    offered = candidates(small_run, trained)
    measure, calls = module._losses_with, iter(range(len(offered)))

    def broken_first(*arguments: Any) -> Any:
        losses = measure(*arguments)
        return losses * float("nan") if next(calls) == 0 else losses

    monkeypatch.setattr(module, "_losses_with", broken_first)
    scores = evaluated(evaluate_job(small_run, offered)).scores
    assert scores[0].error == module.NOT_FINITE
    assert [score.error for score in scores[1:]] == [None, None]
    assert all(score.gain > 0 for score in scores[1:])


def test_nobody_valid_is_no_error(small_run: SmallRun, trained: Trained, tmp_path: Path) -> None:
    write_bytes(tmp_path / "empty")
    nobody = msgspec.structs.replace(candidates(small_run, trained)[0], delta=str(tmp_path / "empty"))
    result = evaluated(evaluate_job(small_run, (nobody,)))
    assert [score.gain for score in result.scores] == [0]
    assert result.losses_before


def test_a_copy_of_an_earlier_delta_overlaps_wholly(small_run: SmallRun, trained: Trained) -> None:
    earlier = ((trained.results[2].delta.sha256, trained.delta(2)),)
    result = evaluated(evaluate_job(small_run, candidates(small_run, trained), earlier))
    overlaps = [score.overlap_ppm for score in result.scores]
    assert overlaps[2] == 1_000_000
    assert max(overlaps[:2]) < 500_000


def test_without_unassigned_data_nobody_is_scored(small_run: SmallRun, trained: Trained) -> None:
    job = msgspec.structs.replace(evaluate_job(small_run, candidates(small_run, trained)), unassigned=())
    with pytest.raises(LocalProtocolError, match="no unassigned shard"):
        run_job(job)


def test_aggregate_improves_and_is_order_free(small_run: SmallRun, trained: Trained, tmp_path: Path) -> None:
    result = aggregated(aggregate_job(small_run, trained, tmp_path / "next"))
    other = aggregated(aggregate_job(small_run, trained, tmp_path / "other", order=(2, 0, 1)))
    assert result.error is None
    assert result.checkpoint == other.checkpoint
    assert result.root == other.root
    assert result.state_id != other.state_id
    assert other.weights == (result.weights[2], result.weights[0], result.weights[1])
    inspected = run_job(InspectJob(MODEL, str(tmp_path / "next")))
    assert inspected == InspectResult(result.root)
    assert validation_loss(small_run, str(tmp_path / "next")) < validation_loss(small_run, small_run.checkpoint)


def test_aggregate_names_the_blob_that_is_no_delta(small_run: SmallRun, trained: Trained, tmp_path: Path) -> None:
    job = aggregate_job(small_run, trained, tmp_path / "next")
    exchanged = msgspec.structs.replace(job, deltas=(job.deltas[0], (job.deltas[1][0], job.deltas[2][1])))
    result = aggregated(exchanged)
    assert (result.state_id, result.root, result.checkpoint) == (None, None, None)
    assert result.error is not None
    assert job.deltas[1][0] in result.error
    assert not (tmp_path / "next").exists()


def test_a_round_without_accepted_work_keeps_the_weights(small_run: SmallRun, trained: Trained, tmp_path: Path) -> None:
    result = aggregated(aggregate_job(small_run, trained, tmp_path / "next", order=()))
    assert result.root == small_run.result.root
    assert result.checkpoint == small_run.result.checkpoint
    assert result.state_id not in (None, small_run.state_id)


def test_inspect_names_what_is_wrong(small_run: SmallRun, tmp_path: Path) -> None:
    write_bytes(tmp_path / "bomb", (10_000_000_000).to_bytes(8, "little"), b"{}")
    result = run_job(InspectJob(MODEL, str(tmp_path / "bomb")))
    assert isinstance(result, InspectResult)
    assert result.root is None
    assert result.error is not None
    assert "promises 10000000000 bytes" in result.error


def test_a_short_validation_shard_is_refused(small_run: SmallRun) -> None:
    with pytest.raises(RemoteProtocolError, match="validation shard"):
        run_job(ValidationJob(MODEL, small_run.checkpoint, small_run.validation, 1 << 20, 32, 8))


def test_reference_loop_is_the_jobs_one_by_one(small_run: SmallRun, trained: Trained, tmp_path: Path) -> None:
    built = small_run.result
    dataset = msgspec.json.decode(Path(small_run.paths[built.dataset.sha256]).read_bytes(), type=DatasetManifest)
    manifest = small_run.manifest(rounds=2)
    turns = (RoundSpec(1, NAMES, (NAMES[2], NAMES[0]), 3), RoundSpec(2, NAMES[:2], NAMES[:2], 2))
    spec, out = tmp_path / "spec.json", tmp_path / "out.json"
    spec.write_bytes(msgspec.json.encode(ReferenceSpec(manifest, dataset, small_run.paths, turns, str(tmp_path / "work"))))
    assert reference.main([str(spec), str(out)]) == 0
    states = msgspec.json.decode(out.read_bytes(), type=list[RoundState])
    expected = aggregated(aggregate_job(small_run, trained, tmp_path / "next", order=(2, 0)))
    assert (states[0].state_id, states[0].root, states[0].checkpoint) == (expected.state_id, expected.root, expected.checkpoint)
    assert [state.round for state in states] == [1, 2]
    file = tmp_path / "work" / "round-00002" / "model.safetensors"
    assert states[1].checkpoint == BlobRef(Digest(sha256_hex(file.read_bytes())), file.stat().st_size)
    assert np.isfinite(load_checkpoint_untrusted(file, model_tensors(MODEL))).all()


def test_the_reference_loop_keeps_what_a_newcomer_showed_and_nobody_used(small_run: SmallRun, tmp_path: Path) -> None:
    built = small_run.result
    dataset = msgspec.json.decode(Path(small_run.paths[built.dataset.sha256]).read_bytes(), type=DatasetManifest)
    roots = []
    for shown in ((), NAMES):
        turns = (RoundSpec(1, NAMES, (NAMES[0],), 3, shown=shown), RoundSpec(2, NAMES, (NAMES[1],), 3, shown=shown))
        work = str(tmp_path / str(len(shown)))
        roots.append(
            [
                state.root
                for state in reference.repeat_run(ReferenceSpec(small_run.manifest(rounds=2), dataset, small_run.paths, turns, work))
            ]
        )
    assert roots[0][0] == roots[1][0]
    assert roots[0][1] != roots[1][1], "the second worker trained on with its residual and moments"


def test_provenance_tells_who_trained_on_what(small_run: SmallRun, tmp_path: Path) -> None:
    """Trained long on few windows, a worker knows its own; a worker that claims another's windows does not."""
    long = msgspec.structs.replace(TRAINING, inner_steps=40)
    for slot in range(WORKERS):
        run_job(msgspec.structs.replace(small_run.train_job(tmp_path, slot), training=long))
    scoring = msgspec.structs.replace(SCORING, unassigned_tokens=32 * 60, assigned_tokens=32 * 60)
    honest = candidates(small_run, Trained(tmp_path, ()))
    swapped = tuple(
        msgspec.structs.replace(one, shard=other.shard, window_seed=other.window_seed)
        for one, other in zip(honest, honest[1:] + honest[:1], strict=True)
    )
    job = msgspec.structs.replace(evaluate_job(small_run, honest), training=long, scoring=scoring)
    true, false = (evaluated(msgspec.structs.replace(job, candidates=offered)) for offered in (honest, swapped))
    claims, lies = ([score.provenance / score.provenance_se for score in result.scores] for result in (true, false))
    assert min(claims) > 5
    assert max(lies) < 2


def test_reference_refuses_a_damaged_blob(small_run: SmallRun, tmp_path: Path) -> None:
    digest = small_run.result.checkpoint.sha256
    with pytest.raises(LocalProtocolError, match=f"blob {digest} is missing or damaged"):
        reference.checked_blob({digest: small_run.validation}, digest)
    assert reference.checked_blob(small_run.paths, digest) == small_run.checkpoint
    assert reference.main(["only one argument"]) == 2
