"""What must hold of every paid run with tickets, whatever went wrong: the ledger, the attestations and both sides' books say the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio
import trio.testing

from nostrain.core.escrow.rows import Dues, Payee, Payer, Share, Tickets
from nostrain.core.escrow.share import LEAST_MSAT
from nostrain.core.escrow.split import shares
from nostrain.core.rows import Round
from nostrain.core.tables import PayeeState, PayerState, ShareState
from nostrain.core.timing import SAFETY_BLOCKS
from nostrain.ports.lightning import HoldState
from nostrain.protocol.messages import Offer
from nostrain.testing.lightning import Move
from nostrain.testing.simulation import Simulation
from nostrain.units import Digest, EventId, Msat, Pubkey
from tests.sim.world import (
    check_nothing_broke,
    check_one_word_each,
    check_oracles,
    check_states,
    locked_levels,
    reached,
    round_rows,
    rows_of,
)

FEE = Msat(500_000)


def check_accounts(sim: Simulation) -> None:
    """Every invariant that is about money, and those that are not."""
    check_balances(sim)
    check_shares(sim)
    check_tickets(sim)
    check_levels(sim)
    check_books(sim)
    check_ledgers(sim)
    check_states(sim)
    check_one_word_each(sim)
    check_oracles(sim)
    check_nothing_broke(sim)


def check_balances(sim: Simulation) -> None:
    """Nothing is held, nothing is lost, and each worker has gained its rewards, which follow from public attestations, less its fees."""
    assert sim.ledger.held() == 0
    check_moves(sim)
    fees = Counter(name for name, _ in sim.tickets.payments)
    for worker in (one for one in sim.participants.values() if one.role == "worker"):
        rewards = sum(reached(sim, announcement, worker.pubkey) * sim.plan.level_msat for announcement in rounds(sim))
        started_with = sim.plan.fee_msat * sim.plan.rounds
        assert sim.ledger.balances[worker.name] - started_with == rewards - fees[worker.name] * sim.plan.fee_msat, worker.name


def check_moves(sim: Simulation) -> None:
    """Whatever happened: nothing is lost, nothing was locked twice, and what was locked ended once, as paid or as refunded."""
    assert sim.ledger.total() == sim.funds
    for payment_hash, invoice in sim.ledger.invoices.items():
        locked, settled, returned = (sim.ledger.moves[payment_hash, move] for move in (Move.LOCKED, Move.SETTLED, Move.RETURNED))
        assert locked <= 1, "paid twice"
        assert settled + returned + (invoice.state is HoldState.ACCEPTED) == locked, "paid and refunded"
        assert (settled == 1) == (invoice.state is HoldState.PAID)


def check_shares(sim: Simulation) -> None:
    """Each validator has gained its shares, which follow from public events, once; the coordinator has the fees less shares and rewards."""
    fees = len(sim.tickets.payments) * sim.plan.fee_msat
    rewards = sum(reached(sim, announcement, worker) * sim.plan.level_msat for announcement in rounds(sim) for worker in workers(sim))
    total = 0
    for validator in (one for one in sim.participants.values() if one.role == "validator"):
        due = sum(earned(sim, number).get(validator.pubkey, 0) for number in range(1, sim.plan.rounds + 1))
        assert sim.ledger.balances[validator.name] == (due if due >= LEAST_MSAT else 0), validator.name
        total += sim.ledger.balances[validator.name]
    assert sim.ledger.balances["coordinator"] - sim.started["coordinator"] == fees - total - rewards
    hashes = [payment_hash for _, payment_hash in sim.ledger.book.payments]
    assert len(hashes) == len(set(hashes))
    paid = [row for row in rows_of(sim, "coordinator", Share) if row.state is ShareState.PAID]
    assert {row.payment_hash for row in paid} <= set(hashes)
    assert sum(row.paid_msat for row in rows_of(sim, "coordinator", Dues)) == total


def earned(sim: Simulation, number: int) -> dict[Pubkey, Msat]:
    """The shares of a round as a validator that is up computes them, or the coordinator: they have to agree."""
    views = []
    for name, one in sim.participants.items():
        row = round_rows(sim, name).get(number)
        if one.run is not None and row is not None and row.result is not None:
            views.append(shares(one.run, row))
    assert all(view == views[0] for view in views)
    return views[0] if views else {}


def rounds(sim: Simulation) -> list[EventId]:
    """The rounds as the coordinator has them."""
    return [row.id for row in rows_of(sim, "coordinator", Round)]


def check_tickets(sim: Simulation, *, unclaimed: frozenset[str] = frozenset()) -> None:
    """No worker pays twice for a round, nobody else gets an offer, and what was paid for is on the seller's books.

    Those in `unclaimed` may have been away from their payment until the round was over.
    """
    sold = {
        (row.announcement, worker): ticket.payment_hash
        for row in rows_of(sim, "coordinator", Tickets)
        for worker, ticket in row.sold.items()
    }
    paid = Counter(name for name, _ in sim.tickets.payments)
    assert all(count <= len(rounds(sim)) for count in paid.values()), "a ticket was paid for twice"
    claimed = set(sold.values())
    assert claimed <= {payment_hash for _, payment_hash in sim.tickets.payments}
    assert {name for name, payment_hash in sim.tickets.payments if payment_hash not in claimed} <= unclaimed
    for message in sim.mailed(Offer):
        assert isinstance(message.body, Offer)
        assert (message.body.announcement, message.body.payee) in sold


def check_levels(sim: Simulation) -> None:
    """A level is paid exactly if t validators attested it; no invoice but those of the offers was ever paid."""
    levels = locked_levels(sim)
    paid = {payment_hash for payment_hash, invoice in sim.ledger.invoices.items() if invoice.state is HoldState.PAID}
    deserved = {
        payment_hash for (announcement, worker, level), payment_hash in levels.items() if reached(sim, announcement, worker) >= level
    }
    assert paid == deserved
    assert len(set(levels.values())) == len(levels)


def check_books(sim: Simulation) -> None:
    """Payer and payee have every level down as the ledger has it: paid or given back, never both; and no level is still open."""
    state = {payment_hash: invoice.state for payment_hash, invoice in sim.ledger.invoices.items()}
    for payer in rows_of(sim, "coordinator", Payer):
        for level in payer.levels:
            assert level.state in (PayerState.PAID, PayerState.FAILED)
            if level.lock is not None:
                assert (level.state is PayerState.PAID) == (state.get(level.lock.payment_hash) is HoldState.PAID)
    for payee in (row for name in sim.participants for row in rows_of(sim, name, Payee)):
        for mine in payee.levels:
            assert mine.state in (PayeeState.SETTLED, PayeeState.CANCELLED)
            assert mine.lock is not None
            assert (mine.state is PayeeState.SETTLED) == (state.get(mine.lock.payment_hash) is HoldState.PAID)


def check_ledgers(sim: Simulation) -> None:
    """What a node's journal says came and went is what its balance has changed by, to the msat; and it names every payment, once."""
    paid = {payment_hash for payment_hash, invoice in sim.ledger.invoices.items() if invoice.state is HoldState.PAID}
    bought = {payment_hash for _, payment_hash in sim.tickets.payments}
    for name, one in sim.participants.items():
        assert one.runtime is not None
        journal = one.runtime.ports.journal
        entries = [entry for _, entry in journal.ledger(limit=1 << 30)]
        assert sum(entry.change_msat for entry in entries) == sim.ledger.balances.get(name, 0) - sim.started.get(name, 0), name
        assert sum(total.change_msat for total in journal.totals()) == sum(entry.change_msat for entry in entries)
        hashes = [entry.payment_hash for entry in entries]
        assert len(hashes) == len(set(hashes))
        if one.role == "coordinator":
            assert {entry.payment_hash for entry in entries if entry.kind == "paid"} == paid
            assert {entry.payment_hash for entry in entries if entry.kind in ("ticket_sold", "ticket_unclaimed")} == bought
            shared = {payment_hash for _, payment_hash in sim.ledger.book.payments}
            assert {entry.payment_hash for entry in entries if entry.kind == "share_paid"} == shared
            assert not {entry.payment_hash for entry in entries if entry.kind == "refunded"} & paid


@dataclass
class Ended:
    """How each HTLC ended, and how many blocks before its expiry."""

    blocks_left: dict[Digest, int] = field(default_factory=dict)

    def check(self) -> None:
        """None was held beyond the point from which its payee must not settle."""
        assert self.blocks_left
        assert min(self.blocks_left.values()) >= SAFETY_BLOCKS


@asynccontextmanager
async def watching(sim: Simulation) -> AsyncIterator[Ended]:
    """Record the end of every HTLC while the context is open."""
    ended = Ended()

    async def watch() -> None:
        while True:
            changed = sim.ledger.changed
            for payment_hash, invoice in sim.ledger.invoices.items():
                if invoice.cltv_expiry is not None and invoice.state is not HoldState.ACCEPTED:
                    ended.blocks_left.setdefault(payment_hash, invoice.cltv_expiry - sim.ledger.height())
            await changed.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        yield ended
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def workers(sim: Simulation) -> set[Pubkey]:
    """Keys of the workers."""
    return {one.pubkey for one in sim.participants.values() if one.role == "worker"}
