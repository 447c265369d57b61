"""A worker that pays for its ticket and dies until its round is over: both sides' books have the fee, as what it was."""

from __future__ import annotations

import pytest

from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import Death, Step
from tests.sim.world import simulate, to_the_end
from tests.sim_paid.accounts import FEE, check_accounts, check_ledgers, check_moves, check_tickets

AWAY_S = 2_000.0
WORKER = "worker-0"


def booked(sim: Simulation, name: str) -> list[tuple[str, str]]:
    """Kind and payment of what a node has in its books of tickets in which this worker is a party, or which it bought."""
    runtime = sim.participants[name].runtime
    assert runtime is not None
    entries = [entry for _, entry in runtime.ports.journal.ledger(limit=1 << 30)]
    ours = {payment_hash for payer, payment_hash in sim.tickets.payments if payer == WORKER}
    return [(entry.kind, entry.payment_hash) for entry in entries if entry.payment_hash in ours]


@pytest.mark.parametrize("step", [Step("ticket_payer", "pay", "after"), Step("wallet", "save", "after")])
def test_a_fee_for_nothing(step: Step, seed: int) -> None:
    """It dies when the payment is made, or when it has written that down: the node is asked what came of it in the first case."""
    nth = 1 if step.port == "ticket_payer" else 2

    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_moves(sim)
        check_tickets(sim, unclaimed=frozenset({WORKER}))
        check_ledgers(sim)
        payments = [payment_hash for payer, payment_hash in sim.tickets.payments if payer == WORKER]
        assert booked(sim, WORKER)[0] == ("ticket_lost", payments[0])
        assert booked(sim, "coordinator")[0] == ("ticket_unclaimed", payments[0])

    death = Death(WORKER, step, nth, AWAY_S)
    simulate(Plan(seed=seed, rounds=2, workers=2, instances=2, fee_msat=FEE, deaths=(death,)), scenario)


def test_one_that_comes_back_in_time_has_bought_it(seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_accounts(sim)
        assert {kind for kind, _ in booked(sim, WORKER)} == {"ticket_bought"}

    death = Death(WORKER, Step("ticket_payer", "pay", "after"), 1, 1.0)
    simulate(Plan(seed=seed, rounds=1, workers=2, instances=2, fee_msat=FEE, deaths=(death,)), scenario)
