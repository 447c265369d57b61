"""Paid runs with a submission fee: rewards less fees to the millisatoshi, one ticket a round, whatever breaks on the way to it."""

from __future__ import annotations

import pytest

from nostrain.core.rows import Submission
from nostrain.daemon.status import lightning_status
from nostrain.protocol.messages import Offer
from nostrain.testing.relays import Faults
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import Death, Step, When
from nostrain.testing.tickets import TicketFaults
from nostrain.units import Msat
from tests.sim.world import results, rows_of, simulate, to_the_end
from tests.sim_paid.accounts import FEE, check_accounts, watching, workers

SAVES = 3
"""Writes of a wallet for one ticket: the invoice, the preimage, the ticket."""


async def everyone_is_paid(sim: Simulation) -> None:
    """The run ends, every worker's work is used in every round, and the accounts are right."""
    async with watching(sim) as ended:
        await to_the_end(sim)
    check_accounts(sim)
    ended.check()
    assert len(results(sim)) == sim.plan.rounds
    for result in results(sim):
        assert {item.worker for item in result.accepted} == workers(sim)
    assert len(sim.tickets.payments) == sim.plan.rounds * sim.plan.workers


@pytest.mark.parametrize("fee", [Msat(1), FEE])
def test_each_worker_gains_its_rewards_less_its_fees(fee: Msat, seed: int) -> None:
    simulate(Plan(seed=seed, fee_msat=fee), everyone_is_paid)


def test_workers_of_different_quality_are_paid_different_levels(seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_accounts(sim)
        for result in results(sim):
            levels = {item.worker: item.level for item in result.accepted}
            assert sim.key("worker-4") not in levels
            assert 0 < levels[sim.key("worker-3")] < levels[sim.key("worker-0")]
        assert sim.ledger.balances["worker-4"] == 0, "it has paid its fees and earned nothing"

    simulate(Plan(seed=seed, workers=5, instances=2, fee_msat=FEE, quality={"worker-3": 0.55, "worker-4": 0.1}), scenario)


def test_lost_replies_and_lost_requests(seed: int) -> None:
    """Of the tickets' payments and of the hold invoices' too; with a network that loses and delays."""
    faults = Faults(loss=0.2, duplication=0.2, unavailable=0.2, delay_s=(0.0, 2.0))
    tickets = TicketFaults(unavailable=0.5, lost_replies=4)
    simulate(Plan(seed=seed, fee_msat=FEE, lost_replies=5, faults=faults, ticket_faults=tickets), everyone_is_paid)


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("at", range(1, SAVES + 1))
def test_a_worker_that_dies_while_it_buys_does_not_pay_twice(at: int, when: When, seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        await everyone_is_paid(sim)
        assert sim.participants["worker-0"].crashes == 1
        assert [name for name, _ in sim.tickets.payments].count("worker-0") == 1

    simulate(
        Plan(
            seed=seed, rounds=1, workers=2, instances=2, fee_msat=FEE, deaths=(Death("worker-0", Step("wallet", "save", when.value), at),)
        ),
        scenario,
    )


def test_who_cannot_pay_the_fee_gets_no_offer(seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        sim.ledger.balances["worker-0"] = Msat(FEE - 1)
        sim.funds = sim.ledger.total()
        poor = sim.key("worker-0")
        await to_the_end(sim)
        assert sim.ledger.total() == sim.funds
        assert sim.ledger.balances["worker-0"] == FEE - 1
        assert {message.body.payee for message in sim.mailed(Offer) if isinstance(message.body, Offer)} == workers(sim) - {poor}
        assert {item.worker for item in results(sim)[0].accepted} == workers(sim) - {poor}
        assert rows_of(sim, "worker-0", Submission) == [], "nor does it train for nothing"
        runtime = sim.participants["worker-0"].runtime
        assert runtime is not None
        status = lightning_status(runtime.state)
        assert (status.state, status.reason) == ("short", "our channels can send 499 sat, a ticket costs 500")

    simulate(Plan(seed=seed, rounds=1, fee_msat=FEE), scenario)
