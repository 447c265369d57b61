"""The reference loop of a delayed run against the jobs, one by one: trained from the state before, applied to the one that is there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nostrain.learning.dispatch import JobRunner, run_job
from nostrain.learning.reference import ReferenceSpec, RoundSpec, RoundState, repeat_run
from nostrain.protocol.assignment import assigned_ahead
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.jobs import AggregateJob, AggregateResult, OwnStep, TrainJob, TrainResult
from nostrain.units import Digest, Pubkey
from tests.learning.conftest import CODEC, MODEL, OUTER, TRAINING, SmallRun

ONE, OTHER = (Pubkey(letter * 64) for letter in "ab")


class ByHand:
    """The files of a run that is made here."""

    def __init__(self, run: SmallRun, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.made: dict[tuple[int, Pubkey], Digest] = {}

    def train(self, number: int, worker: Pubkey, base: Digest, checkpoint: str, before: int = 0) -> str:
        """Digest of the delta; beside it lies the private state."""
        work = assigned_ahead(base, number, worker, len(self.run.shards))
        stem = self.folder / f"{number}-{worker[0]}"
        job = TrainJob(
            model=MODEL,
            training=TRAINING,
            codec=CODEC,
            checkpoint=checkpoint,
            shard=self.run.shards[work.shard],
            seed=work.seed,
            steps_done=(number - 1) * TRAINING.inner_steps,
            state_in=self.state_of(before, worker) if before else None,
            delta_out=f"{stem}.delta",
            state_out=f"{stem}.state",
            own=OwnStep(OUTER, self.made[before, worker], str(self.folder / f"{before}-{worker[0]}.delta"), 2)
            if before == number - 1 > 0
            else None,
        )
        result = run_job(job)
        assert isinstance(result, TrainResult)
        self.made[number, worker] = result.delta.sha256
        return result.delta.sha256

    def state_of(self, number: int, worker: Pubkey) -> str:
        """The private state that a training left."""
        return str(self.folder / f"{number}-{worker[0]}.state")

    def apply(self, number: int, state_id: Digest, checkpoint: str, deltas: dict[Pubkey, str], committed: int) -> tuple[Digest, str]:
        """The next state and its file."""
        chosen = tuple((Digest(digest), str(self.folder / f"{number}-{worker[0]}.delta")) for worker, digest in deltas.items())
        out = str(self.folder / f"after-{number}")
        result = run_job(AggregateJob(MODEL, CODEC, OUTER, state_id, checkpoint, chosen, committed, out))
        assert isinstance(result, AggregateResult)
        assert result.state_id is not None
        return result.state_id, out


def test_the_reference_loop_of_a_delayed_run(small_run: SmallRun, tmp_path: Path) -> None:
    """Round 2 comes to nothing, though one has committed; the other commits to nothing in it, and goes on from what was used."""
    dataset = msgspec.json.decode(Path(small_run.paths[small_run.result.dataset.sha256]).read_bytes(), type=DatasetManifest)
    manifest = msgspec.structs.replace(small_run.manifest(rounds=3), delay=1)
    both = (ONE, OTHER)
    turns = (
        RoundSpec(1, both, both, 2, trained=both),
        RoundSpec(2, both, (), 1, trained=(ONE,)),
        RoundSpec(3, both, (OTHER, ONE), 2, attempt=1, trained=both),
    )
    found = repeat_run(ReferenceSpec(manifest, dataset, small_run.paths, turns, str(tmp_path / "work")))

    hand = ByHand(small_run, tmp_path)
    start, first = small_run.state_id, small_run.checkpoint
    one = {worker: hand.train(1, worker, start, first) for worker in both}
    second, at_second = hand.apply(1, start, first, one, 2)
    hand.train(2, ONE, start, first, 1)
    three = {worker: hand.train(3, worker, second, at_second, last) for worker, last in ((OTHER, 1), (ONE, 2))}
    third, _ = hand.apply(3, second, at_second, three, 2)
    assert [(state.round, state.state_id) for state in found] == [(1, second), (3, third)]
    assert all(isinstance(state, RoundState) for state in found)


def test_a_training_that_takes_its_own_step_first_begins_where_that_step_leads(small_run: SmallRun, tmp_path: Path) -> None:
    """Alone in its rounds, a worker of a delayed run trains from the very state that it will be scored on. Resident or not: the same bits."""
    runner = JobRunner()
    first = runner.run(small_run.train_job(tmp_path))
    assert isinstance(first, TrainResult)
    path = str(tmp_path / "0.delta")
    after = str(tmp_path / "after")
    step = AggregateJob(MODEL, CODEC, OUTER, small_run.state_id, small_run.checkpoint, ((first.delta.sha256, path),), 1, after)
    stepped = runner.run(step)
    afresh = run_job(step)
    assert isinstance(stepped, AggregateResult)
    assert isinstance(afresh, AggregateResult)
    assert (stepped.root, stepped.weights) == (afresh.root, afresh.weights)
    job = msgspec.structs.replace(small_run.train_job(tmp_path, 1), state_in=str(tmp_path / "0.state"), steps_done=TRAINING.inner_steps)
    ahead = msgspec.structs.replace(job, own=OwnStep(OUTER, first.delta.sha256, path, 1))
    there = msgspec.structs.replace(job, checkpoint=after, delta_out=str(tmp_path / "there"), state_out=str(tmp_path / "there.state"))
    made = [one.run(each) for one, each in ((runner, ahead), (JobRunner(), ahead), (JobRunner(), there), (runner, job))]
    digests = [result.delta.sha256 for result in made if isinstance(result, TrainResult)]
    assert digests[0] == digests[1] == digests[2] != digests[3]


@pytest.mark.parametrize(("name", "why"), [("0.delta", "has another digest"), ("gone", "No such file")])
def test_without_the_delta_of_our_own_training_begins_at_the_base_and_says_so(
    small_run: SmallRun, tmp_path: Path, name: str, why: str
) -> None:
    job = small_run.train_job(tmp_path)
    first = run_job(job)
    own = OwnStep(OUTER, Digest("1" * 64), str(tmp_path / name), 1)
    again = run_job(msgspec.structs.replace(job, own=own, delta_out=str(tmp_path / "again")))
    assert isinstance(first, TrainResult)
    assert isinstance(again, TrainResult)
    assert again.delta == first.delta
    (line,) = again.lost
    assert "our own delta" in line
    assert why in line
