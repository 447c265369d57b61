"""What was paid for a ticket whose round is over: found without paying anything, and told apart from what was never paid."""

from __future__ import annotations

import pytest

from nostrain.errors import OutcomeUnknown
from nostrain.ports.tickets import PaidTicket
from nostrain.units import Digest

from .test_ticket_client import buy, buyer
from .ticket_world import FEE, ROUND, Crash, Wallet, World


async def died(at: int, *, lost: bool = False) -> tuple[World, Wallet]:
    """A buyer that died after so many saves, or whose payment's reply was lost."""
    world, wallet = World(), Wallet()
    wallet.crash_at, world.node.lost = at, int(lost)
    with pytest.raises(OutcomeUnknown if lost else Crash):
        await buy(buyer(world, wallet))
    return world, wallet


async def test_nothing_was_begun() -> None:
    assert await buyer(World(), Wallet()).find_payment(ROUND) is None


async def test_an_invoice_that_was_never_paid_is_forgotten() -> None:
    world, wallet = await died(1)
    assert await buyer(world, wallet).find_payment(ROUND) is None
    assert (wallet.saved, world.node.paid) == ({}, {})


@pytest.mark.parametrize(("at", "lost"), [(0, True), (2, False)])
async def test_a_payment_whose_ticket_never_came(at: int, lost: bool) -> None:
    world, wallet = await died(at, lost=lost)
    (payment_hash,) = world.node.paid
    for _ in range(2):
        assert await buyer(world, wallet).find_payment(ROUND) == PaidTicket(payment_hash, FEE, claimed=False)
    assert wallet.saved[ROUND].preimage is not None
    assert len(world.node.paid) == len(world.node.invoices) == 1


async def test_a_ticket_that_came_too_late_to_be_told() -> None:
    world, wallet = World(), Wallet()
    ticket = await buy(buyer(world, wallet))
    assert await buyer(world, wallet).find_payment(ROUND) == PaidTicket(Digest(ticket.payment_hash), FEE, claimed=True)
