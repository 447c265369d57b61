"""A crash of payer or payee around their journals' commits, in a run with tickets: nobody pays twice, nobody loses, nothing stays held.

Points are a sample of the commits of a whole round; NOSTRAIN_SIM_ALL=1 takes every one of them.
"""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import trio

from nostrain.core.escrow.rows import Payee
from nostrain.core.tables import PayeeState
from nostrain.core.timing import SAFETY_BLOCKS
from nostrain.ports.lightning import HoldState
from nostrain.protocol.messages import Reveal
from nostrain.testing.simulation import Simulation
from nostrain.testing.steps import When
from nostrain.testing.tickets import TicketFaults
from tests.sim.world import reached, results, rows_of, simulate, to_the_end
from tests.sim_paid.accounts import check_accounts, check_tickets, rounds, watching, workers
from tests.sim_paid.commit_points import PAYEE, PAYER, commits, plan
from tests.sim_paid.crashing import paid_in_spite_of_it

STRIDE = 1 if os.environ.get("NOSTRAIN_SIM_ALL") else 5
FAST_BLOCK_S = 10
"""So fast that an HTLC comes near its expiry within a round."""


async def survives(sim: Simulation) -> int:
    """The round is closed with everybody's work, and all are paid for it, once."""
    await paid_in_spite_of_it(sim)
    assert sum(invoice.state is HoldState.PAID for invoice in sim.ledger.invoices.values()) == sim.ledger.sent
    return sum(one.crashes for one in sim.participants.values())


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("name", [PAYER, PAYEE])
def test_a_crash_around_a_commit(name: str, when: When) -> None:
    points = range(1 if when is When.AFTER else 1 + STRIDE // 2, commits(name) + 1, STRIDE)
    assert len(points) >= 8
    crashes = sum(simulate(plan(name, at, when), survives) for at in points)
    assert crashes >= len(points) - 3, "trio runs tasks in any order, so that runs differ by a few commits; but not by more"


def test_crashes_together_with_lost_replies() -> None:
    """The payer dies, and what it hears of its payments before and after is that nothing is known of them."""
    for at in range(3, commits(PAYER), 4 * STRIDE):
        simulate(
            replace(plan(PAYER, at, When.AFTER), lost_replies=4, ticket_faults=TicketFaults(unavailable=0.3, lost_replies=2)), survives
        )


def held_to_settled() -> range:
    """The payee's commits from its last levels' lock on: those at which it may owe its node a settlement."""
    return range(commits(PAYEE) - 12, commits(PAYEE), 3 if STRIDE > 1 else 1)


def test_a_payee_that_comes_back_in_time_is_paid() -> None:
    """It sleeps through the attestations, but not for so long that the HTLCs come near their expiry."""

    async def scenario(sim: Simulation) -> None:
        async with watching(sim) as ended:
            await to_the_end(sim)
        check_accounts(sim)
        ended.check()
        assert sim.ledger.balances[PAYEE] == 2 * sim.plan.level_msat

    for at in held_to_settled():
        simulate(replace(plan(PAYEE, at, When.AFTER), block_s=FAST_BLOCK_S, restart_after_s=45.0 * FAST_BLOCK_S), scenario)


def test_a_payee_that_comes_back_too_late_never_settles() -> None:
    """From 24 blocks before the expiry it gives the money back, though t validators attested its work."""

    async def scenario(sim: Simulation) -> None:
        async with watching(sim) as ended:
            await sim.until(lambda: len(sim.said(Reveal)) == sim.plan.workers, limit_s=1_000)
            sim.participants[PAYEE].stop()
            await trio.sleep(60 * FAST_BLOCK_S)
            sim.start(PAYEE)
            await to_the_end(sim)
        assert sim.ledger.total() == sim.funds
        check_tickets(sim)
        (row,) = rows_of(sim, PAYEE, Payee)
        assert reached(sim, rounds(sim)[0], row.payee) == len(row.levels)
        assert {level.state for level in row.levels} == {PayeeState.CANCELLED}
        assert sim.ledger.balances[PAYEE] == 0
        assert 0 < min(ended.blocks_left.values()) < SAFETY_BLOCKS

    simulate(replace(plan(PAYEE, 0, When.AFTER), block_s=FAST_BLOCK_S), scenario)


@pytest.mark.parametrize(("silent", "block_s", "waited"), [(1, 20, False), (2, FAST_BLOCK_S, True)])
def test_validators_fall_silent_while_blocks_come_fast(silent: int, block_s: int, waited: bool) -> None:
    """With two of three silent every level comes back, here because of its expiry, long before the round is over; with one all are paid."""

    async def scenario(sim: Simulation) -> None:
        async with watching(sim) as ended:
            await sim.until(lambda: len(sim.said(Reveal)) == sim.plan.workers, limit_s=1_000)
            for index in range(silent):
                sim.participants[f"validator-{index}"].stop()
            await to_the_end(sim, but=frozenset(f"validator-{index}" for index in range(silent)))
        check_accounts(sim)
        ended.check()
        (result,) = results(sim)
        assert {item.worker for item in result.accepted} == (workers(sim) if silent == 1 else set())
        assert (min(ended.blocks_left.values()) == SAFETY_BLOCKS) == waited

    simulate(replace(plan(PAYEE, 0, When.AFTER), block_s=block_s), scenario)


def test_a_settlement_that_was_begun_before_a_long_sleep_is_not_finished_after_it() -> None:
    """The payee knows the preimage and has told nobody; it wakes up within 24 blocks of the expiry, and the height that it remembers is old."""

    async def scenario(sim: Simulation) -> None:
        def states() -> set[PayeeState]:
            return {level.state for row in rows_of(sim, PAYEE, Payee) for level in row.levels}

        async with watching(sim) as ended:
            await sim.until(lambda: len(sim.said(Reveal)) == sim.plan.workers, limit_s=1_000)
            sim.ledger.crash(PAYEE)
            assert await sim.until(lambda: states() == {PayeeState.SETTLING}, limit_s=1_000)
            sim.participants[PAYEE].stop()
            sim.ledger.start(PAYEE)
            await trio.sleep(60 * FAST_BLOCK_S)
            sim.start(PAYEE)
            await to_the_end(sim)
            assert states() == {PayeeState.CANCELLED}
        assert sim.ledger.total() == sim.funds
        assert sim.ledger.balances[PAYEE] == 0
        assert 0 < min(ended.blocks_left.values()) < SAFETY_BLOCKS

    simulate(replace(plan(PAYEE, 0, When.AFTER), block_s=FAST_BLOCK_S), scenario)
