"""The validators' shares in whole runs: paid once through crashes, lost replies, nodes that are away, payments that hang and invoices that expire."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from nostrain.core.escrow.rows import Dues, Share
from nostrain.core.escrow.share import PAYABLE_MSAT
from nostrain.core.tables import ShareState
from nostrain.protocol.messages import Reveal
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import When
from nostrain.units import Msat, Ppm
from tests.sim.world import owed, rows_of, simulate, to_the_end
from tests.sim_paid.accounts import FEE, check_accounts
from tests.sim_paid.commit_points import PAYER, SCORING, commits, plan

HOUR_S = 3_600
LAST = 8
"""More commits than the payer makes after its last round: three invoices and three payments, some in one commit."""


async def ends_well(sim: Simulation) -> None:
    """Every share is paid, once, and all books agree."""
    await to_the_end(sim)
    check_accounts(sim)
    assert len(sim.ledger.book.payments) == sim.plan.validators


@pytest.mark.parametrize("when", When)
def test_the_payer_dies_at_any_commit_while_shares_are_paid(when: When) -> None:
    for at in range(commits(PAYER) - LAST, commits(PAYER) + 1):
        simulate(plan(PAYER, at, when), ends_well)


def test_the_payer_dies_and_the_replies_are_lost() -> None:
    for at in range(commits(PAYER) - LAST, commits(PAYER) + 1, 3):

        async def scenario(sim: Simulation) -> None:
            await sim.until(lambda: bool(rows_of(sim, PAYER, Share)), limit_s=20_000)
            sim.ledger.lost_replies = 3
            await ends_well(sim)

        simulate(plan(PAYER, at, When.AFTER), scenario)


def test_a_validators_node_that_is_away_is_paid_when_it_is_back() -> None:
    async def scenario(sim: Simulation) -> None:
        await sim.until(lambda: sim.ledger.held() > 0, limit_s=10_000)
        sim.ledger.crash("validator-1")
        assert await sim.until(lambda: len(sim.ledger.book.payments) == 2, limit_s=20_000)
        await trio.sleep(HOUR_S)
        assert [row.validator for row in owed(sim)] == [sim.key("validator-1")]
        assert sim.ledger.balances["validator-1"] == 0
        sim.ledger.start("validator-1")
        await ends_well(sim)

    simulate(plan(PAYER, 0, When.AFTER), scenario)


def test_a_payment_that_hangs_beyond_its_invoices_expiry_is_followed_and_not_replaced() -> None:
    """The payer is restarted meanwhile: what it knows is that it may have paid."""

    async def scenario(sim: Simulation) -> None:
        sim.ledger.book.stuck = True
        assert await sim.until(lambda: len(sim.ledger.book.payments) == 3, limit_s=20_000)
        sim.participants[PAYER].stop()
        await trio.sleep(3 * HOUR_S)
        sim.start(PAYER)
        await trio.sleep(HOUR_S)
        assert {row.state for row in rows_of(sim, PAYER, Share)} == {ShareState.PAYING}
        assert len(sim.ledger.book.fetched) == 3, "no other invoice was asked for"
        sim.ledger.unstick()
        await ends_well(sim)

    simulate(plan(PAYER, 0, When.AFTER), scenario)


def test_an_invoice_that_expired_before_it_was_sent_is_replaced() -> None:
    async def scenario(sim: Simulation) -> None:
        sim.ledger.book.expiry_s = 0
        assert await sim.until(lambda: len(sim.ledger.book.fetched) >= 3, limit_s=20_000)
        await trio.sleep(60)
        assert {row.state for row in rows_of(sim, PAYER, Share)} == {ShareState.FAILED}
        assert sim.ledger.book.payments == []
        sim.ledger.book.expiry_s = HOUR_S
        await ends_well(sim)
        assert len(sim.ledger.book.fetched) > 3

    simulate(plan(PAYER, 0, When.AFTER), scenario)


def test_shares_worth_a_payment_are_paid_in_the_run_after_their_audit() -> None:
    async def scenario(sim: Simulation) -> None:
        assert await sim.until(lambda: len(sim.ledger.book.payments) == 3, limit_s=50_000)
        run = sim.participants[PAYER].run
        assert run is not None
        assert run.round == 3, "two rounds after the one that earned them"
        assert {row.amount_msat for row in sim.ledger.book.fetched.values()} == {3_000_000 * 2 // 2 // 3}
        await to_the_end(sim)
        check_accounts(sim)
        assert len(sim.ledger.book.payments) == 6, "and all the rest at the end"
        assert all(row.due_msat == 0 for row in rows_of(sim, PAYER, Dues))

    fee = Msat(3_000_000)
    assert fee * 2 // 2 // 3 >= PAYABLE_MSAT
    simulate(Plan(rounds=4, workers=2, instances=2, scoring=SCORING, fee_msat=fee), scenario)


def test_a_validator_that_never_attests_has_no_share_and_the_others_have_all_of_it() -> None:
    async def scenario(sim: Simulation) -> None:
        await sim.until(lambda: len(sim.said(Reveal)) == sim.plan.workers, limit_s=1_000)
        sim.participants["validator-2"].stop()
        await to_the_end(sim, but=frozenset({"validator-2"}))
        check_accounts(sim)
        assert sim.ledger.balances["validator-2"] == 0
        assert sim.ledger.balances["validator-0"] == sim.ledger.balances["validator-1"] == 2 * FEE // 2 // 2

    simulate(plan(PAYER, 0, When.AFTER), scenario)


def test_without_a_share_the_coordinator_keeps_the_fees() -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_accounts(sim)
        assert sim.ledger.book.issuers == {}
        assert not rows_of(sim, PAYER, Dues)

    simulate(replace(plan(PAYER, 0, When.AFTER), validator_share_ppm=Ppm(0)), scenario)
