"""What our Lightning node was paid by ordinary invoices: a validator's shares of the fees, and tickets that nobody came to claim.

The node numbers the payments to it; the shell tells of ours in that order, and the last number is kept, so that each is booked once. A ticket that
was paid for is booked when it is claimed (`core.escrow.ticket`), or here when its round is over and nobody can claim it any more.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.escrow.rows import Income, TicketPaid, Tickets
from nostrain.core.inputs import InvoicePaid
from nostrain.core.rows import Round
from nostrain.core.run import with_item
from nostrain.core.timing import collect_by
from nostrain.core.transaction import Transaction
from nostrain.protocol.ledger import LedgerEntry
from nostrain.units import EventId

KEY: Final = "income"
SHARES: Final = "nostrain: shares of the fees of run "
"""How the description of a validator's offer begins; the first characters of the run's id follow."""
RUN_CHARS: Final = 16


def paid(tx: Transaction, input_: InvoicePaid) -> None:
    """Take a payment, unless it was told before."""
    last = tx.get(KEY, Income)
    if last is not None and last.node_id == input_.node_id and input_.index <= last.index:
        return
    tx.put(KEY, Income(input_.node_id, input_.index))
    if input_.announcement is not None and input_.worker is not None:
        ticket(tx, input_, TicketPaid(input_.worker, input_.amount_msat), input_.announcement)
    else:
        share(tx, input_)


def share(tx: Transaction, input_: InvoicePaid) -> None:
    """Our share of the fees of a run; whoever else pays to the offer that we made for that cannot be told from its coordinator."""
    run = tx.run if tx.run is not None and input_.run and tx.run.id.startswith(input_.run) else None
    id_, number, announcement, party = EventId(""), 0, EventId(""), tx.me.pubkey
    if run is not None:
        id_, number, announcement, party = run.id, run.round, (announcement, *run.results)[-1], run.coordinator
    tx.entries.append(LedgerEntry(tx.now, id_, number, announcement, "share_received", input_.amount_msat, input_.payment_hash, party))
    tx.note("info", "shares_received", f"received {input_.amount_msat} msat of the fees of {f'run {id_[:8]}' if id_ else 'an earlier run'}")


def ticket(tx: Transaction, input_: InvoicePaid, paid_: TicketPaid, announcement: EventId) -> None:
    """A ticket was paid for: if it is not claimed yet that is waited for, as long as its round is kept."""
    if tx.get(f"round/{announcement}", Round) is None:
        run = tx.run.id if tx.run is not None else EventId("")
        sum_msat, payment_hash = paid_.amount_msat, input_.payment_hash
        tx.entries.append(LedgerEntry(tx.now, run, 0, announcement, "ticket_unclaimed", sum_msat, payment_hash, paid_.worker))
        return
    key = f"tickets/{announcement}"
    row = tx.get(key, Tickets) or Tickets(announcement=announcement)
    tx.put(key, msgspec.structs.replace(row, paid=with_item(row.paid, input_.payment_hash, paid_)))


def decide(tx: Transaction) -> None:
    """Book the tickets that were paid for and cannot be claimed any more."""
    if tx.run is None:
        return
    for key in tx.keys("tickets/"):
        row = tx.need(key, Tickets)
        if not row.paid:
            continue
        claimed = {sold.payment_hash for sold in row.sold.values()}
        open_ = {payment_hash: one for payment_hash, one in row.paid.items() if payment_hash not in claimed}
        round_ = tx.need(f"round/{row.announcement}", Round)
        if open_ and tx.now <= collect_by(tx.run, round_):
            continue
        for payment_hash, one in sorted(open_.items()):
            tx.book("ticket_unclaimed", round_, one.amount_msat, payment_hash, one.worker)
            tx.note(
                "info",
                "tickets_unclaimed",
                f"{one.worker[:8]} paid for a ticket of round {round_.announcement.round}, and never claimed it",
            )
        tx.put(key, msgspec.structs.replace(row, paid={}, unclaimed=(*row.unclaimed, *sorted(open_))))


def pending(tx: Transaction, announcement: EventId) -> bool:
    """Whether the round has tickets that were paid for and may still be claimed."""
    row = tx.get(f"tickets/{announcement}", Tickets)
    return row is not None and bool(row.paid)
