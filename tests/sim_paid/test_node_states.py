"""Lightning nodes that go down, fall behind or run out of funds: no round is begun that cannot be settled, and work goes on by itself."""

from __future__ import annotations

import pytest
import trio

from nostrain.core.rows import Submission
from nostrain.daemon.status import lightning_status
from nostrain.protocol.messages import Announcement, Commitment, Enrolment, Result
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Msat
from tests.sim.world import results, rows_of, simulate, to_the_end
from tests.sim_paid.accounts import FEE, check_accounts, watching, workers

NEED = 4 * Plan().level_msat


def state(sim: Simulation, name: str) -> str:
    """What `nostrain-ctl status` says of a participant's Lightning node."""
    runtime = sim.participants[name].runtime
    assert runtime is not None
    return lightning_status(runtime.state).state


def accepted(sim: Simulation) -> list[set[str]]:
    """Whose work each round used."""
    names = {one.pubkey: name for name, one in sim.participants.items()}
    return [{names[item.worker] for item in result.accepted} for result in results(sim)]


def enrolled(sim: Simulation, count: int) -> bool:
    return len({message.author for message in sim.said(Enrolment) if message.author in workers(sim)}) == count


def test_a_worker_whose_node_is_down_sits_the_round_out_and_takes_the_next(seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        sim.ledger.crash("worker-0")
        assert await sim.until(lambda: len(sim.said(Result)) == 1, limit_s=5_000)
        assert state(sim, "worker-0") == "down"
        assert rows_of(sim, "worker-0", Submission) == []
        sim.ledger.start("worker-0")
        async with watching(sim) as ended:
            await to_the_end(sim)
        check_accounts(sim)
        ended.check()
        assert accepted(sim) == [{"worker-1"}, {"worker-0", "worker-1"}]
        assert sim.ledger.balances["worker-0"] == NEED + FEE, "it bought one ticket of the two that it could afford"
        assert state(sim, "worker-0") == "ready"

    simulate(Plan(seed=seed, rounds=2, workers=2, instances=2, fee_msat=FEE), scenario)


def test_a_worker_whose_node_falls_behind_waits_for_it(seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        sim.ledger.syncing["worker-0"] = "still loading blocks"
        assert await sim.until(lambda: len(sim.said(Announcement)) == 1, limit_s=5_000)
        await trio.sleep(30)
        assert (state(sim, "worker-0"), rows_of(sim, "worker-0", Submission)) == ("syncing", [])
        del sim.ledger.syncing["worker-0"]
        await to_the_end(sim)
        check_accounts(sim)
        assert accepted(sim) == [{"worker-0", "worker-1"}], "there was time enough to join the round that was open"

    simulate(Plan(seed=seed, rounds=1, workers=2, instances=2, fee_msat=FEE), scenario)


def test_a_coordinator_whose_node_is_down_announces_nothing_until_it_is_back(seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        sim.ledger.crash("coordinator")
        assert await sim.until(lambda: enrolled(sim, 2), limit_s=5_000)
        await trio.sleep(600)
        assert sim.said(Announcement) == []
        assert state(sim, "coordinator") == "down"
        sim.ledger.start("coordinator")
        await to_the_end(sim)
        check_accounts(sim)
        assert accepted(sim) == [{"worker-0", "worker-1"}] * 2

    simulate(Plan(seed=seed, rounds=2, workers=2, instances=2, fee_msat=FEE), scenario)


@pytest.mark.parametrize("names", [("coordinator",), ("worker-0",), ("coordinator", "worker-0", "worker-1")])
def test_nodes_that_are_away_for_a_while_in_mid_round_cost_nobody_anything(names: tuple[str, ...], seed: int) -> None:
    """Once while the levels are being locked, once while they are held: every HTLC that was promised is kept, and everybody is paid."""

    async def scenario(sim: Simulation) -> None:
        async with watching(sim) as ended:
            for moment in (lambda: sim.ledger.held() > 0, lambda: len(sim.said(Commitment)) == 2):
                assert await sim.until(moment, limit_s=5_000)
                for name in names:
                    sim.ledger.crash(name)
                await trio.sleep(20)
                assert {state(sim, name) for name in names} == {"down"}
                for name in names:
                    sim.ledger.start(name)
            await to_the_end(sim)
        check_accounts(sim)
        ended.check()
        assert accepted(sim) == [{"worker-0", "worker-1"}]

    simulate(Plan(seed=seed, rounds=1, workers=2, instances=2, fee_msat=FEE), scenario)


def test_a_coordinator_out_of_funds_lists_whom_it_can_pay_and_nobody_when_that_is_nobody(seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        sim.ledger.crash("coordinator")
        assert await sim.until(lambda: enrolled(sim, 2), limit_s=5_000)
        sim.ledger.start("coordinator")
        assert await sim.until(lambda: len(sim.said(Result)) == 1, limit_s=5_000)
        await trio.sleep(2_000)
        assert len(sim.said(Announcement)) == 1, "what is left does not pay another worker"
        assert state(sim, "coordinator") == "short"
        (listed,) = [message.body.workers for message in sim.said(Announcement) if isinstance(message.body, Announcement)]
        assert len(listed) == 1
        assert sim.participants["coordinator"].runtime is not None
        assert sim.participants["coordinator"].runtime.counters["locks_in_doubt"] >= 1
        sim.ledger.balances["coordinator"] = Msat(sim.ledger.balances["coordinator"] + 2 * NEED)
        sim.started["coordinator"] = Msat(sim.started["coordinator"] + 2 * NEED)
        sim.funds += 2 * NEED
        await to_the_end(sim)
        check_accounts(sim)
        assert len(accepted(sim)[1]) == 2

    simulate(Plan(seed=seed, rounds=2, workers=2, min_workers=1, instances=2, fee_msat=FEE, funds_msat=Msat(NEED + NEED // 2)), scenario)
