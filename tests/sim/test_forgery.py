"""Dishonest coordinators, validators and strangers among living honest nodes: who is harmed, who notices, who must not care."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import open_root
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import (
    Accepted,
    Acknowledgement,
    Announcement,
    Attestation,
    Commitment,
    Confirmation,
    Enrolment,
    OracleAnnouncements,
    Receipt,
    Result,
    Reveal,
    VerdictHash,
)
from nostrain.testing.entropy import SeededEntropy
from nostrain.testing.relays import Faults
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Digest, EventId, UnixTime
from nostrain.wire.messages import draft
from tests.sim.world import accepted_names, check_all, check_money, results, simulate, to_the_end

SMALL = {"workers": 2, "instances": 2}
SLOW = Faults(delay_s=(1, 2))
"""Slow enough for a test to act between two messages."""


async def halted_everywhere(sim: Simulation, reason: str) -> None:
    """Every honest node stops, and says why; then no money is held any more."""
    honest = [one for one in sim.participants.values() if one.name != "coordinator"]
    assert await sim.until(lambda: all(one.run is not None and one.run.halted for one in honest), limit_s=500)
    for one in honest:
        notes = [note.text for note in one.notes if note.counter == "runs_halted"]
        assert len(notes) == 1
        assert reason in notes[0]
    await sim.until(lambda: sim.ledger.held() == 0, limit_s=5_000)
    check_money(sim)


async def said(sim: Simulation, body: type, count: int = 1) -> None:
    """Wait until so many messages of a type were published."""
    assert await sim.until(lambda: len(sim.said(body)) >= count, limit_s=1_000)


def test_two_announcements_on_one_parent_halt_the_run() -> None:
    async def scenario(sim: Simulation) -> None:
        await said(sim, Announcement)
        first = sim.said(Announcement)[0].body
        sim.relays.accept(sim.participants["coordinator"].sign(first))
        await halted_everywhere(sim, "announced two rounds")

    simulate(Plan(rounds=2, **SMALL), scenario)  # type: ignore[arg-type]


def test_two_receipts_halt_the_run() -> None:
    async def scenario(sim: Simulation) -> None:
        await said(sim, Receipt)
        body = sim.said(Receipt)[0].body
        assert isinstance(body, Receipt)
        other = msgspec.structs.replace(body, commitments=body.commitments[:1])
        sim.relays.accept(sim.participants["coordinator"].sign(other))
        await halted_everywhere(sim, "two receipts")

    simulate(Plan(rounds=2, **SMALL), scenario)  # type: ignore[arg-type]


def test_two_results_halt_the_run() -> None:
    async def scenario(sim: Simulation) -> None:
        await said(sim, Result)
        body = sim.said(Result)[0].body
        assert isinstance(body, Result)
        sim.relays.accept(sim.participants["coordinator"].sign(msgspec.structs.replace(body, refused=())))
        await halted_everywhere(sim, "two results")

    simulate(Plan(rounds=2, **SMALL), scenario)  # type: ignore[arg-type]


def forged_result(sim: Simulation, cites: int) -> Result:
    """The result that a coordinator would like: everybody's work, a state of its own, so many attestations."""
    coordinator, announcement = sim.participants["coordinator"], sim.said(Announcement)[0]
    assert coordinator.replica is not None
    assert coordinator.replica.blob is not None
    reveals = {message.author: message.body.blob for message in sim.said(Reveal) if isinstance(message.body, Reveal)}
    deltas = {worker: msgspec.structs.replace(blob, urls=()) for worker, blob in reveals.items()}
    return Result(
        run=sim.said(RunManifest)[0].id,
        announcement=announcement.id,
        round=1,
        attestations=tuple(sorted(message.id for message in sim.said(Attestation)))[:cites],
        accepted=tuple(Accepted(worker=worker, delta=deltas[worker], weight=65_536, level=4) for worker in sorted(deltas)),
        refused=(),
        committed=2,
        state_id=Digest("ab" * 32),
        root=Digest("cd" * 32),
        checkpoint=coordinator.replica.blob,
    )


@pytest.mark.parametrize("cites", [0, 1])
def test_a_result_that_uses_unattested_work_is_void_to_everyone(cites: int) -> None:
    async def scenario(sim: Simulation) -> None:
        await said(sim, Attestation, 3)
        sim.participants["coordinator"].stop()
        assert not sim.said(Result)
        sim.relays.accept(sim.participants["coordinator"].sign(forged_result(sim, cites)))
        await halted_everywhere(sim, "is void")

    simulate(Plan(rounds=1, faults=SLOW, **SMALL), scenario)  # type: ignore[arg-type]


def test_a_state_that_does_not_follow_from_the_deltas_is_noticed_by_everyone() -> None:
    """A coordinator that poisons the checkpoint: every replica finds another state, says so in public, and stops. The work is paid."""

    async def scenario(sim: Simulation) -> None:
        await said(sim, Attestation, 3)
        sim.participants["coordinator"].stop()
        sim.relays.accept(sim.participants["coordinator"].sign(forged_result(sim, 3)))
        honest = [one for one in sim.participants.values() if one.name != "coordinator"]

        def diverged() -> bool:
            return all(any(note.counter == "states_diverged" for note in one.notes) for one in honest)

        assert await sim.until(diverged, limit_s=500)
        assert await sim.until(lambda: len(sim.said(Confirmation)) >= 2 * len(honest), limit_s=500)
        found = {
            message.body.state_id for message in sim.said(Confirmation) if isinstance(message.body, Confirmation) and message.body.round
        }
        assert len(found) == 1
        assert found != {"ab" * 32}
        await sim.until(lambda: sim.ledger.held() == 0, limit_s=5_000)
        check_money(sim)
        assert sim.ledger.balances["worker-0"] == 4 * sim.plan.level_msat

    simulate(Plan(rounds=1, faults=SLOW, **SMALL), scenario)  # type: ignore[arg-type]


def test_a_worker_that_commits_twice_loses_its_round_and_nobody_elses() -> None:
    async def scenario(sim: Simulation) -> None:
        await said(sim, Commitment)
        mine = sim.said(Commitment)[0]
        assert isinstance(mine.body, Commitment)
        body = msgspec.structs.replace(mine.body, commitment=Digest("ee" * 32))
        one = next(one for one in sim.participants.values() if one.pubkey == mine.author)
        sim.relays.accept(one.sign(body))
        await to_the_end(sim)
        first, second = results(sim)
        assert len(first.accepted) <= 3
        assert len(accepted_names(sim, second)) == 3
        check_money(sim)

    simulate(Plan(rounds=2, workers=3, instances=2), scenario)


@pytest.mark.parametrize("kind", [OracleAnnouncements, Acknowledgement, VerdictHash, Attestation])
def test_a_validator_that_says_everything_twice_strands_nobody(kind: type) -> None:
    """Each of its messages of one kind is published again, with another id, before and after the first."""

    async def scenario(sim: Simulation) -> None:
        liar = sim.participants["validator-0"]
        for number in range(1, sim.plan.rounds + 1):

            def spoken(number: int = number) -> list[object]:
                return [m.body for m in sim.said(kind) if m.author == liar.pubkey and m.body.round == number]  # type: ignore[union-attr]

            assert await sim.until(lambda: bool(spoken()) or bool(liar.run and liar.run.finished), limit_s=2_000)
            for body in spoken():
                for shift in (-2, -1, 1, 2):
                    sim.relays.accept(liar.sign(body, UnixTime(sim.clock.now() + shift)))  # type: ignore[arg-type]
        await to_the_end(sim)
        check_money(sim)
        for result in results(sim):
            assert len(result.accepted) == 2

    simulate(Plan(rounds=2, **SMALL), scenario)  # type: ignore[arg-type]


def test_strangers_who_enrol_and_speak_are_not_in_the_way() -> None:
    """Strangers enrol as workers, speak in rounds that do not list them, replay other runs, and refer to what never was."""

    async def scenario(sim: Simulation) -> None:
        await said(sim, Announcement)
        stranger = NostrSigner(open_root(sim.participants["coordinator"].folder / "stranger", SeededEntropy(9, "stranger").draw))
        announcement = sim.said(Announcement)[0]
        assert isinstance(announcement.body, Announcement)
        run, now = announcement.body.run, sim.clock.now()
        nowhere, other = EventId("77" * 32), EventId("66" * 32)
        bodies = [
            Commitment(run, announcement.id, 1, Digest("11" * 32), announcement.body.state_id),
            Commitment(run, nowhere, 1, Digest("11" * 32), announcement.body.state_id),
            Commitment(run, nowhere, 99, Digest("11" * 32), announcement.body.state_id),
            Commitment(other, announcement.id, 1, Digest("11" * 32), announcement.body.state_id),
            Receipt(run, announcement.id, 1, (nowhere,)),
            Acknowledgement(run, announcement.id, 1, nowhere, Digest("22" * 32)),
            announcement.body,
            msgspec.structs.replace(announcement.body, parent=nowhere, round=2),
            Enrolment(run=run, role="worker", name="stranger"),
        ]
        for body in bodies:
            sim.relays.accept(stranger.sign(draft(body, now)))
        await to_the_end(sim)
        check_all(sim, but=frozenset({stranger.pubkey}))
        for result in results(sim):
            assert accepted_names(sim, result) == {"worker-0", "worker-1"}

    simulate(Plan(rounds=1, **SMALL), scenario)  # type: ignore[arg-type]
