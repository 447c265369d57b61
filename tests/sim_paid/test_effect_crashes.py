"""A crash before and after everything that an effect asks of the world: Lightning, mail, relays, blobs, signer, oracle, ticket server, wallet.

What must hold is read from the ledger and from public attestations, never from what a node believes. In CI each step is tried once, at a time
that the seed chooses; NOSTRAIN_SIM_ALL=1 tries every step each time that it is taken.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Literal

import pytest
import trio

from nostrain.core.timing import SAFETY_BLOCKS
from nostrain.ports.lightning import HoldState
from nostrain.testing.lightning import Move
from nostrain.testing.relays import Faults
from nostrain.testing.simulation import Simulation
from nostrain.testing.steps import Death, Step
from nostrain.testing.tickets import TicketFaults
from tests.sim.world import locked_levels, reached, results, simulate, to_the_end
from tests.sim_paid.accounts import check_accounts, check_moves, check_tickets, watching, workers
from tests.sim_paid.crashing import EVERY_POINT, PAYEE, PAYER, VALIDATOR, both, deaths, every_death, paid_in_spite_of_it, plan, steps

COMMON = (
    both("journal", "load", "commit")
    | both("signer", "sign")
    | both("relays", "publish")
    | both("engine", "run")
    | both("blobs", "get", "put")
)
ALL_STEPS = {
    PAYER: COMMON
    | both("mail", "send")
    | both("entropy", "draw")
    | both("lightning", "pay", "fetch_invoice", "pay_fetched")
    | {Step("lightning", "pay", "told")},
    PAYEE: COMMON
    | both("mail", "send")
    | both("entropy", "draw")
    | both("lightning", "hold_invoice", "settle", "cancel")
    | both("tickets", "buy_ticket")
    | both("ticket_server", "handle_async_request")
    | both("ticket_payer", "pay")
    | both("wallet", "load", "save"),
    VALIDATOR: COMMON - both("blobs", "put")
    | both("entropy", "draw")
    | both("lightning", "offer")
    | both("oracle", "announce", "attest", "chain_end", "chain_link", "endorse"),
}
FAST_BLOCK_S = 10
"""So fast that an HTLC comes near its expiry within a round."""
PAIRS = 400 if EVERY_POINT else 8


async def survives(sim: Simulation) -> None:
    """The round is closed with everybody's work, all are paid for it, once, and whoever was to die has died."""
    async with watching(sim) as ended:
        await to_the_end(sim)
    check_accounts(sim)
    ended.check()
    (result,) = results(sim)
    assert {item.worker: item.level for item in result.accepted} == {key: 1 if key == sim.key(PAYEE) else 2 for key in workers(sim)}
    assert len(sim.tickets.payments) == sim.plan.workers
    assert sum(move is Move.SETTLED for _, move in sim.ledger.moves) == 1 + 2 + 2
    assert sum(move is Move.RETURNED for _, move in sim.ledger.moves) == 1
    for name, one in sim.participants.items():
        assert one.crashes == sum(death.name == name for death in sim.plan.deaths)


@pytest.mark.parametrize("name", ALL_STEPS)
def test_a_crash_between_any_two_steps(name: str, seed: int) -> None:
    assert set(steps(seed)[name]) == ALL_STEPS[name], "no kind of step is left out"
    for death in deaths(seed, name):
        simulate(plan(seed, death), survives)


def pairs(seed: int, *names: str) -> list[tuple[Death, Death]]:
    """Two deaths each, of the same participant or of two, drawn from all the points of `names`."""
    rng = random.Random(f"{seed}/pairs")
    points = [death for name in names for death in every_death(seed, name)]
    return [(first, second) for first, second in (rng.sample(points, 2) for _ in range(PAIRS)) if first != second]


def test_two_crashes(seed: int) -> None:
    """The second comes in the same life or in a later one: at the latest when what the first one cut off is done again."""

    async def scenario(sim: Simulation) -> int:
        await paid_in_spite_of_it(sim)
        return sum(one.crashes for one in sim.participants.values())

    crashes = [simulate(plan(seed, *twice), scenario) for twice in pairs(seed, PAYER, PAYEE, VALIDATOR)]
    assert sum(crashes) >= 1.8 * len(crashes), "after the first, the steps of the second life are not quite those of the first"


def test_a_crash_while_the_network_fails(seed: int) -> None:
    """Relays lose and delay, blob servers do not answer, replies about payments and tickets are lost, and somebody dies."""
    faults = Faults(loss=0.2, duplication=0.2, unavailable=0.2, delay_s=(0.0, 2.0))
    tickets = TicketFaults(unavailable=0.3, lost_replies=2)

    for death, _ in pairs(seed, PAYER, PAYEE)[: None if EVERY_POINT else 4]:
        worse = replace(plan(seed, death), faults=faults, unavailable=0.1, lost_replies=4, ticket_faults=tickets)
        simulate(worse, paid_in_spite_of_it)


def test_a_crash_while_a_lightning_node_is_down(seed: int) -> None:
    """The payee's node or the payer's goes away for a while around the time at which its daemon dies."""
    rng = random.Random(f"{seed}/outages")
    money = [death for name in (PAYER, PAYEE) for death in every_death(seed, name) if death.step.port in ("lightning", "ticket_payer")]
    for death in money if EVERY_POINT else rng.sample(money, 6):

        async def scenario(sim: Simulation, death: Death = death) -> None:
            assert await sim.until(lambda: sim.participants[death.name].crashes == 1, limit_s=2_000)
            sim.ledger.crash(death.name)
            await trio.sleep(rng.uniform(1, 40))
            sim.ledger.start(death.name)
            await paid_in_spite_of_it(sim)

        simulate(plan(seed, death), scenario)


async def too_late_or_paid(sim: Simulation) -> int:
    """The payee may have been away for longer than its HTLCs live: then it has nothing, and never what it must not take any more.

    How many levels were attested, held, and came back.
    """
    lost = 0
    async with watching(sim) as ended:
        await to_the_end(sim)
    check_moves(sim)
    check_tickets(sim, unclaimed=frozenset({PAYEE}))
    assert sim.ledger.held() == 0
    paid = {payment_hash for payment_hash, invoice in sim.ledger.invoices.items() if invoice.state is HoldState.PAID}
    for (announcement, worker, level), payment_hash in locked_levels(sim).items():
        deserved = reached(sim, announcement, worker) >= level
        assert deserved or payment_hash not in paid
        if worker != sim.key(PAYEE):
            assert (payment_hash in paid) == deserved
        elif deserved and payment_hash not in paid and sim.ledger.invoices[payment_hash].payer is not None:
            assert ended.blocks_left[payment_hash] <= SAFETY_BLOCKS, "t validators attested: only the chain's clock may have taken it"
            lost += 1
    assert all(left >= SAFETY_BLOCKS for payment_hash, left in ended.blocks_left.items() if payment_hash in paid)
    return lost


def test_a_payee_that_is_away_for_long_while_blocks_come_fast(seed: int) -> None:
    """From 24 blocks before the expiry on it cancels and never settles, wherever it was interrupted."""
    rng = random.Random(f"{seed}/long")
    points = [death for death in every_death(seed, PAYEE) if death.step.port in ("lightning", "journal", "mail", "ticket_payer", "wallet")]
    for death in points if EVERY_POINT else rng.sample(points, 4):
        blocks = rng.randint(30, 110)
        base = plan(seed, death._replace(down_s=float(blocks * FAST_BLOCK_S)))
        simulate(replace(base, block_s=FAST_BLOCK_S), too_late_or_paid)


@pytest.mark.parametrize(("at", "blocks", "lost"), [("before", 10, 0), ("before", 62, 1), ("after", 62, 0)])
def test_a_payee_that_dies_settling(at: Literal["before", "after"], blocks: int, lost: int, seed: int) -> None:
    """Back in time it settles; back too late it cancels what its node has not settled."""
    death = Death(PAYEE, Step("lightning", "settle", at), 1, down_s=float(blocks * FAST_BLOCK_S))
    assert simulate(replace(plan(seed, death), block_s=FAST_BLOCK_S), too_late_or_paid) == lost
