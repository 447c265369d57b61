"""Workers that deliver nothing worth paying for, each in its own way: they get nothing, everybody else is paid, and no round is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from nostrain.hashes import sha256_hex
from nostrain.protocol.jobs import Job, JobResult, TrainJob, TrainResult
from nostrain.protocol.manifest import BlobRef, ScoringSpec
from nostrain.protocol.messages import Commitment, Reveal
from nostrain.testing.engine import StubEngine
from nostrain.testing.relays import Faults
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Digest
from tests.sim.world import accepted_names, check_all, reached, results, round_rows, simulate, to_the_end

HONEST = {"worker-0", "worker-1", "worker-2"}
BAD = "worker-3"


class Spoiler:
    """An engine whose deltas are replaced after training."""

    def __init__(self, stub: StubEngine, spoil: Callable[[bytes], bytes]) -> None:
        self._stub, self._spoil = stub, spoil

    async def run(self, job: Job) -> JobResult:
        """As the port."""
        result = await self._stub.run(job)
        if isinstance(job, TrainJob):
            assert isinstance(result, TrainResult)
            data = self._spoil(Path(job.delta_out).read_bytes())
            Path(job.delta_out).write_bytes(data)
            result = msgspec.structs.replace(result, delta=BlobRef(Digest(sha256_hex(data)), len(data)))
        return result


async def the_bad_one_gets_nothing(sim: Simulation) -> None:
    """The run goes to its end, the others' work is used and paid, the bad one's is not."""
    await to_the_end(sim)
    check_all(sim)
    for result in results(sim):
        assert accepted_names(sim, result) == HONEST, result.refused
    for row in round_rows(sim, "coordinator").values():
        assert reached(sim, row.id, sim.key(BAD)) == 0
    assert sim.ledger.balances[BAD] == 0
    for name in HONEST:
        assert sim.ledger.balances[name] == sim.plan.rounds * len(sim.plan.scoring.levels_ppm) * sim.plan.level_msat


def plan(**fields: object) -> Plan:
    """Three honest workers and a bad one."""
    return Plan(**{"rounds": 1, "workers": 4, "instances": 2, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("quality", [0.0, -1.0, 0.3])
def test_work_without_worth(quality: float) -> None:
    simulate(plan(quality={BAD: quality}), the_bad_one_gets_nothing)


@pytest.mark.parametrize("garbage", [b"\x00" * 64, b"{", b'{"type":"nostrain-stub-checkpoint","state":"00","steps":1}', b"\xff" * 9_000])
def test_a_blob_that_is_no_delta(garbage: bytes) -> None:
    simulate(plan(engines={BAD: lambda stub: Spoiler(stub, lambda _: garbage)}), the_bad_one_gets_nothing)


class Tampering(dict[Digest, bytes]):
    """A server's store that serves marked blobs as something else, or not at all."""

    def __init__(self, marked: bytes, served: bytes | None) -> None:
        super().__init__()
        self._marked, self._served = marked, served
        self.asked = 0

    def get(self, digest: Digest, default: bytes | None = None) -> bytes | None:  # type: ignore[override]
        """What a client gets."""
        data = super().get(digest, default)
        if data is not None and data.startswith(self._marked):
            self.asked += 1
            return self._served
        return data


@pytest.mark.parametrize("served", [None, b"not it"])
def test_a_delta_that_is_promised_and_not_to_be_had(served: bytes | None) -> None:
    """One worker's missing blob must not keep the validators from the others."""

    async def scenario(sim: Simulation) -> None:
        store = sim.blobs.blobs = Tampering(b"MARKED", served)
        await the_bad_one_gets_nothing(sim)
        assert store.asked > 0

    simulate(plan(engines={BAD: lambda stub: Spoiler(stub, lambda data: b"MARKED" + data)}), scenario)


def test_a_delta_that_only_validators_can_have_is_paid_and_not_waited_for() -> None:
    """The coordinator cannot fetch what was attested: it closes the round with the others, and the lock opens all the same."""

    async def scenario(sim: Simulation) -> None:
        bad = sim.key(BAD)
        assert await sim.until(lambda: any(message.author == bad for message in sim.said(Reveal)), limit_s=500)
        body = next(message.body for message in sim.said(Reveal) if message.author == bad)
        assert isinstance(body, Reveal)
        fetched = [sim.participants[f"validator-{index}"].folder / "blobs" / body.blob.sha256 for index in range(3)]
        assert await sim.until(lambda: all(path.is_file() for path in fetched), limit_s=500)
        del sim.blobs.blobs[body.blob.sha256]
        await to_the_end(sim)
        check_all(sim)
        assert accepted_names(sim, results(sim)[0]) == HONEST
        assert sim.ledger.balances[BAD] == sim.ledger.balances["worker-0"] > 0

    simulate(plan(), scenario)


def test_a_delta_that_vanishes_once_the_coordinator_has_it_is_there_for_everybody() -> None:
    async def scenario(sim: Simulation) -> None:
        bad = sim.key(BAD)
        assert await sim.until(lambda: any(message.author == bad for message in sim.said(Reveal)), limit_s=500)
        body = next(message.body for message in sim.said(Reveal) if message.author == bad)
        assert isinstance(body, Reveal)
        names = ["coordinator", *(f"validator-{index}" for index in range(3))]
        fetched = [sim.participants[name].folder / "blobs" / body.blob.sha256 for name in names]
        assert await sim.until(lambda: all(path.is_file() for path in fetched), limit_s=500)
        sim.blobs.blobs.pop(body.blob.sha256, None)
        await to_the_end(sim)
        check_all(sim)
        assert accepted_names(sim, results(sim)[0]) == {*HONEST, BAD}

    simulate(plan(faults=Faults(delay_s=(2, 3))), scenario)


def test_a_worker_that_commits_and_never_reveals() -> None:
    async def scenario(sim: Simulation) -> None:
        assert await sim.until(lambda: any(message.author == sim.key(BAD) for message in sim.said(Commitment)), limit_s=500)
        sim.participants[BAD].stop()
        await to_the_end(sim, but=frozenset({BAD}))
        for result in results(sim):
            assert accepted_names(sim, result) == HONEST
        assert sim.ledger.balances[BAD] == 0

    simulate(plan(faults=Faults(delay_s=(2, 3))), scenario)


def test_two_workers_that_share_one_delta() -> None:
    """From the round on in which overlaps of one round count, neither gets anything. (An honest delta is unknown until it is committed to.)"""
    shared: list[bytes] = []

    def share(data: bytes) -> bytes:
        shared.append(data)
        return shared[0]

    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_all(sim)
        result = results(sim)[0]
        assert accepted_names(sim, result) == {"worker-0", "worker-1"}
        assert all("another delta of this round" in item.reason for item in result.refused)
        assert len(result.refused) == 2

    engines = {name: lambda stub: Spoiler(stub, share) for name in ("worker-2", "worker-3")}
    simulate(plan(engines=engines, scoring=ScoringSpec(plausibility_from_round=1)), scenario)


def test_a_delta_of_an_earlier_round() -> None:
    trained: list[bytes] = []

    def repeat(data: bytes) -> bytes:
        trained.append(data)
        return trained[0]

    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_all(sim)
        first, second = results(sim)
        assert BAD in accepted_names(sim, first)
        assert accepted_names(sim, second) == HONEST
        assert [item.reason for item in second.refused] == ["its indices are those of an earlier delta"]

    simulate(plan(rounds=2, engines={BAD: lambda stub: Spoiler(stub, repeat)}), scenario)
