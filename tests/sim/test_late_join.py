"""Who joins late, or was away for long, goes on from a checkpoint that enough validators confirmed, whatever servers, coordinator and crashes do."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import msgspec
import pytest

from nostrain.hashes import sha256_hex
from nostrain.protocol.jobs import AggregateJob, AggregateResult, Job, JobResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Announcement, Commitment, Verdict
from nostrain.testing.engine import StubEngine
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import When, at_commit
from nostrain.units import Digest
from tests.sim.world import accepted_names, check_all, check_states, confirmations, results, simulate, to_the_end

ROUNDS = 3
EVERY_COMMIT = bool(os.environ.get("NOSTRAIN_SIM_ALL"))


def plan(late: str = "worker-2", **fields: object) -> Plan:
    """A run that somebody joins in its last round but one."""
    least = (
        {"workers": 3, "min_workers": 2, "validators": 3, "min_validators": 2} if late == "worker-2" else {"workers": 2, "validators": 4}
    )
    given = {
        "rounds": ROUNDS,
        "instances": 2,
        "paid": False,
        "absent": frozenset({late}),
        "on_disk": frozenset(),
        "min_validators": 3,
        **least,
    }
    return Plan(**{**given, **fields})  # type: ignore[arg-type]


async def opened(sim: Simulation, number: int) -> None:
    """Wait until round `number` was announced and everybody trains."""
    assert await sim.until(lambda: len(sim.said(Announcement)) >= number, limit_s=20_000)


async def joins(sim: Simulation, late: str = "worker-2") -> set[Digest]:
    """`late` joins in the last round but one and sees the end; the deltas and checkpoints that it has fetched or computed on its own."""
    await opened(sim, ROUNDS - 1)
    sim.start(late)
    await to_the_end(sim)
    return {Digest(path.name) for path in (sim.participants[late].folder / "blobs").iterdir()}


def deltas(sim: Simulation, *numbers: int) -> set[Digest]:
    """The deltas that the results of these rounds used."""
    return {item.delta.sha256 for result in results(sim) if result.round in numbers for item in result.accepted}


def landed(sim: Simulation, late: str = "worker-2") -> list[str]:
    """What it said of its leaps."""
    return [note.text for note in sim.participants[late].notes if note.counter == "leaps_landed"]


def test_a_worker_joins_from_a_checkpoint_and_is_paid() -> None:
    async def scenario(sim: Simulation) -> None:
        have = await joins(sim)
        check_all(sim)
        assert len(landed(sim)) == 1
        assert not have & deltas(sim, *range(1, ROUNDS - 1))
        assert deltas(sim, ROUNDS - 1) <= have
        run = sim.participants["worker-2"].run
        assert run is not None
        assert run.manifest.checkpoint.sha256 not in have
        assert "worker-2" in accepted_names(sim, results(sim)[-1])
        assert sim.ledger.balances["worker-2"] > 0
        mine = {number for number in range(ROUNDS + 1) if sim.key("worker-2") in confirmations(sim, number)}
        assert mine == {ROUNDS - 1, ROUNDS}, "it confirms what it computed"

    simulate(plan(paid=True), scenario)


def test_a_validator_joins_from_a_checkpoint_and_its_verdicts_count() -> None:
    late = "validator-3"

    async def scenario(sim: Simulation) -> None:
        have = await joins(sim, late)
        check_all(sim)
        assert landed(sim, late)
        assert not have & deltas(sim, *range(1, ROUNDS - 1))
        scored = [message.body for message in sim.said(Verdict) if message.author == sim.key(late)]
        assert [verdict.round for verdict in scored if isinstance(verdict, Verdict)] == [ROUNDS]
        assert all(score.error is None for verdict in scored if isinstance(verdict, Verdict) for score in verdict.scores)
        assert all(len(result.accepted) == 2 for result in results(sim))

    simulate(plan(late), scenario)


def test_who_was_away_for_many_rounds_leaps_and_takes_part_again() -> None:
    async def scenario(sim: Simulation) -> None:
        await opened(sim, 2)
        sim.participants["worker-1"].stop()
        await opened(sim, 12)
        sim.start("worker-1")
        await to_the_end(sim)
        check_all(sim)
        assert len(landed(sim, "worker-1")) == 1
        assert sim.participants["worker-1"].crashes == 0

    simulate(plan("nobody", rounds=13, validators=2, min_validators=2, threshold=1, absent=frozenset()), scenario)


def test_in_a_delayed_run_a_newcomer_sits_one_round_out() -> None:
    async def scenario(sim: Simulation) -> None:
        await joins(sim)
        check_all(sim)
        assert landed(sim)
        committed = [message.body for message in sim.said(Commitment) if message.author == sim.key("worker-2")]
        assert committed
        assert all(isinstance(body, Commitment) and body.round == ROUNDS for body in committed)

    simulate(plan(delay=1), scenario)


@pytest.mark.parametrize("served", ["another file", "nothing"])
def test_servers_without_the_checkpoints_lead_back_to_the_first(served: str) -> None:
    async def scenario(sim: Simulation) -> None:
        await opened(sim, ROUNDS - 1)
        for result in results(sim):
            if served == "nothing":
                del sim.blobs.blobs[result.checkpoint.sha256]
            else:
                sim.blobs.blobs[result.checkpoint.sha256] = b"of another model"
        have = await joins(sim)
        check_all(sim)
        assert not landed(sim)
        assert deltas(sim, *range(1, ROUNDS)) <= have
        assert "worker-2" in accepted_names(sim, results(sim)[-1])

    simulate(plan(), scenario)


class Substitute:
    """A coordinator's engine whose results name other files than the states that they describe."""

    def __init__(self, stub: StubEngine) -> None:
        self._stub = stub

    async def run(self, job: Job) -> JobResult:
        """As the port."""
        result = await self._stub.run(job)
        if isinstance(job, AggregateJob) and Path(job.checkpoint_out).name.startswith("lead-"):
            assert isinstance(result, AggregateResult)
            path = Path(job.checkpoint_out)
            data = path.read_bytes().replace(b'"steps":', b'"steps":1')
            path.write_bytes(data)
            result = msgspec.structs.replace(result, checkpoint=BlobRef(Digest(sha256_hex(data)), len(data)))
        return result


def test_a_coordinator_that_names_another_file_is_not_believed() -> None:
    async def scenario(sim: Simulation) -> None:
        have = await joins(sim)
        check_states(sim)
        assert not landed(sim)
        notes = [note.text for note in sim.participants["worker-2"].notes if note.counter == "leaps_failed"]
        assert notes
        assert all("is not the state that the validators computed" in text for text in notes)
        assert deltas(sim, *range(1, ROUNDS)) <= have

    simulate(plan(engines={"coordinator": Substitute}), scenario)


@cache
def commits() -> int:
    """How many commits a newcomer makes until it has landed."""

    async def scenario(sim: Simulation) -> int:
        await opened(sim, ROUNDS - 1)
        sim.start("worker-2")
        assert await sim.until(lambda: bool(landed(sim)), limit_s=1_000)
        return sim.participants["worker-2"].steps.taken[at_commit("worker-2", 0, When.AFTER).step]

    return simulate(plan(), scenario)


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_a_newcomer_that_crashes_at_a_commit_lands_all_the_same(when: When) -> None:
    async def scenario(sim: Simulation) -> None:
        await joins(sim)
        check_all(sim)
        assert sim.participants["worker-2"].crashes == 1
        assert landed(sim)
        assert sim.key("worker-2") in confirmations(sim, ROUNDS)

    for at in points(when):
        simulate(plan(deaths=(at_commit("worker-2", at, when),)), scenario)


def points(when: When) -> list[int]:
    """The commits to crash at: all of them, or the last ones, which the leap is made of."""
    every = range(1, commits() + 1)
    return list(every) if EVERY_COMMIT else list(every[-1:] if when is When.BEFORE else every[-3:])
