"""Who comes late, was away, or has no room on its disk: it reads what it missed, computes the same state, and takes part again."""

from __future__ import annotations

import msgspec
import pytest
import trio

from nostrain.core import waiting
from nostrain.core.rows import NodeState, Submission
from nostrain.core.tables import SubmissionState
from nostrain.protocol.messages import Announcement, Confirmation, Result, Reveal
from nostrain.testing.relays import Faults
from nostrain.testing.simulation import Plan, Simulation
from tests.sim.world import accepted_names, check_all, check_money, check_payments, confirmations, results, rows_of, simulate, to_the_end

REORDERING = Faults(loss=0.1, duplication=0.2, delay_s=(0, 3))


async def opened(sim: Simulation, number: int) -> None:
    """Wait until round `number` was announced."""
    assert await sim.until(lambda: len(sim.said(Announcement)) >= number, limit_s=20_000)


@pytest.mark.parametrize("faults", [Faults(), REORDERING], ids=["in order of relays", "reordered"])
def test_a_worker_that_joins_in_round_three_replays_and_is_paid(faults: Faults) -> None:
    async def scenario(sim: Simulation) -> None:
        await opened(sim, 3)
        sim.start("worker-2")
        await to_the_end(sim)
        check_all(sim)
        assert accepted_names(sim, results(sim)[1]) == {"worker-0", "worker-1"}
        assert accepted_names(sim, results(sim)[-1]) == {"worker-0", "worker-1", "worker-2"}
        assert sim.ledger.balances["worker-2"] > 0
        assert sim.key("worker-2") in confirmations(sim, 5)
        assert sim.key("worker-2") not in confirmations(sim, 1), "nobody needs to hear what a newcomer makes of old rounds"

    simulate(Plan(rounds=5, workers=3, min_workers=2, absent=frozenset({"worker-2"}), instances=2, faults=faults), scenario)


@pytest.mark.parametrize("name", ["worker-1", "validator-1"])
def test_who_was_down_for_two_rounds_replays_and_takes_part(name: str) -> None:
    async def scenario(sim: Simulation) -> None:
        await opened(sim, 2)
        sim.participants[name].stop()
        await opened(sim, 4)
        sim.start(name)
        await to_the_end(sim)
        check_all(sim)
        assert accepted_names(sim, results(sim)[-1]) == {"worker-0", "worker-1"}
        # Rounds that listed it are confirmed even if it was away; what it computes is what everybody computed.
        for number in range(1, 7):
            assert len(confirmations(sim, number)) == 6
            assert len(set(confirmations(sim, number).values())) == 1

    simulate(Plan(rounds=6, workers=2, paid=False, instances=2), scenario)


def test_a_validator_that_joins_late_measures_on_the_announced_state_only() -> None:
    async def scenario(sim: Simulation) -> None:
        await opened(sim, 3)
        sim.start("validator-3")
        await to_the_end(sim)
        check_all(sim)
        late = sim.key("validator-3")
        scored = [message.body.round for message in sim.said(object) if message.author == late and type(message.body).__name__ == "Verdict"]  # type: ignore[union-attr]
        assert scored
        assert min(scored) > 3
        assert all(len(result.accepted) == 2 for result in results(sim))

    plan = Plan(rounds=6, workers=2, validators=4, min_validators=3, threshold=2, absent=frozenset({"validator-3"}), paid=False)
    simulate(plan, scenario)


def test_a_worker_that_slept_through_the_attestations_is_paid_when_it_wakes() -> None:
    """Its levels are held for hours; on waking it listens first, and cancels only what nobody attested."""

    async def scenario(sim: Simulation) -> None:
        assert await sim.until(lambda: len(sim.said(Reveal)) == 2, limit_s=1_000)
        sim.participants["worker-0"].stop()
        assert await sim.until(lambda: bool(sim.said(Result)), limit_s=5_000)
        await trio.sleep(3_600)
        assert sim.ledger.held() == 4 * sim.plan.level_msat
        sim.start("worker-0")
        await to_the_end(sim)
        check_money(sim)
        check_payments(sim)
        assert sim.ledger.balances["worker-0"] == 4 * sim.plan.level_msat

    simulate(Plan(rounds=1, workers=2, instances=2, faults=REORDERING), scenario)


def test_a_worker_that_sleeps_too_long_lets_the_money_go() -> None:
    """From 24 blocks before the expiry it cancels and never settles, attested or not."""

    async def scenario(sim: Simulation) -> None:
        assert await sim.until(lambda: len(sim.said(Reveal)) == 2, limit_s=1_000)
        sim.participants["worker-0"].stop()
        await trio.sleep(57 * 600)
        sim.start("worker-0")
        await to_the_end(sim)
        check_money(sim)
        assert sim.ledger.balances["worker-0"] == 0
        assert sim.ledger.balances["worker-1"] == 4 * sim.plan.level_msat

    simulate(Plan(rounds=1, workers=2, instances=2), scenario)


@pytest.mark.parametrize("name", ["coordinator", "validator-0", "worker-0"])
def test_a_disk_that_is_full_for_a_while(name: str) -> None:
    async def scenario(sim: Simulation) -> None:
        one = sim.participants[name]
        await opened(sim, 1)
        await trio.sleep(5)
        one.memory.full = True
        await trio.sleep(40)
        assert [note for note in one.notes if note.counter == "commits_delayed"]
        one.memory.full = False
        await to_the_end(sim)
        check_all(sim)
        assert accepted_names(sim, results(sim)[-1]) == {"worker-0", "worker-1"}

    simulate(Plan(rounds=2, workers=2, instances=2, on_disk=frozenset()), scenario)


def test_thirty_rounds_do_not_make_the_state_grow() -> None:
    sizes: dict[str, list[int]] = {}

    def size(state: NodeState) -> int:
        return sum(len(key) + len(msgspec.json.encode(row)) for key, row in state.rows.items())

    async def scenario(sim: Simulation) -> None:
        for number in (12, 20, 30):
            await opened(sim, number)
            for name, one in sim.participants.items():
                assert one.runtime is not None
                sizes.setdefault(name, []).append(size(one.runtime.state))
        await to_the_end(sim)
        check_all(sim)
        for name, (early, middle, late) in sizes.items():
            assert late < early * 1.15, (name, early, middle, late)
        for row in rows_of(sim, "worker-0", Submission):
            assert row.state is SubmissionState.ACCEPTED

    simulate(Plan(rounds=30, workers=2, validators=2, threshold=1, paid=False, on_disk=frozenset()), scenario)


@pytest.mark.parametrize("most", [waiting.MAX_WAITING, 200], ids=["all of it can wait", "a third of it can wait"])
def test_a_node_that_joins_after_many_rounds_finds_the_state(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """History comes newest first: everything waits until the first announcement is there. What there is no room for is asked for round by round."""
    monkeypatch.setattr(waiting, "MAX_WAITING", most)
    monkeypatch.setattr(waiting, "MAX_WAITING_OF_ONE", most // 4)

    async def scenario(sim: Simulation) -> None:
        await opened(sim, 24)
        sim.start("worker-2")
        await to_the_end(sim)
        check_all(sim)
        late = [message for message in sim.said(Confirmation) if message.author == sim.key("worker-2")]
        assert late
        assert "worker-2" in accepted_names(sim, results(sim)[-1])

    plan = Plan(rounds=27, workers=3, min_workers=2, validators=2, threshold=1, paid=False, absent=frozenset({"worker-2"}))
    simulate(plan, scenario)
