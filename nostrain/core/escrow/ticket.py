"""The submission fee (decision 3, design section 7): a worker buys the ticket of a round; only ticket holders get offers."""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.effects import BuyTicket, FindTicket, Outcome, TicketBought, TicketFound
from nostrain.core.escrow.rows import Tickets, TicketSold
from nostrain.core.inputs import TicketRedeemed
from nostrain.core.rows import Round, Run, Submission
from nostrain.core.run import with_item
from nostrain.core.transaction import Transaction
from nostrain.errors import IllegalTransition
from nostrain.protocol.ledger import EntryKind, LedgerEntry
from nostrain.protocol.manifest import RunManifest
from nostrain.units import Digest, Pubkey

NAME: Final = "ticket"


def charged(manifest: RunManifest) -> bool:
    """Whether the run's rounds have a submission fee."""
    return manifest.settlement.mode == "hold" and manifest.settlement.fee_msat > 0


def buy(tx: Transaction, run: Run, round_: Round, mine: Submission) -> None:
    """Ask for our ticket of the round, once; training goes on meanwhile."""
    if not charged(run.manifest) or mine.ticket is not None:
        return
    settlement = run.manifest.settlement
    tx.emit(
        BuyTicket(
            owner=f"work/{round_.id}",
            name=NAME,
            server=settlement.ticket_server,
            run=run.id,
            announcement=round_.id,
            size=run.manifest.max_delta_bytes,
            ceiling_msat=settlement.fee_msat,
        )
    )


def asked(tx: Transaction, mine: Submission) -> bool:
    """Whether our ticket was asked for and has not come: it may be paid."""
    return tx.outstanding(f"work/{mine.announcement}#{NAME}") is not None


def bought(tx: Transaction, mine: Submission, outcome: TicketBought) -> Submission:
    """Our ticket of the round is paid and claimed. Its price is the manifest's."""
    run, round_ = tx.need("run", Run), tx.need(f"round/{mine.announcement}", Round)
    tx.book("ticket_bought", round_, run.manifest.settlement.fee_msat, outcome.payment_hash, run.coordinator)
    return msgspec.structs.replace(mine, ticket=outcome.token)


def given_up(tx: Transaction, round_: Round) -> None:
    """Our ticket was asked for, and its round is over for us: find out whether it is paid, for the books."""
    said, party = round_.announcement, tx.need("run", Run).coordinator
    tx.emit(FindTicket(owner=f"purchase/{round_.id}", name=NAME, run=said.run, round=said.round, announcement=round_.id, party=party))


def found(tx: Transaction, effect: FindTicket, outcome: Outcome) -> None:
    """What became of it; the round may be forgotten by now."""
    match outcome:
        case TicketFound(payment_hash=str(payment_hash), amount_msat=amount, claimed=claimed):
            kind: EntryKind = "ticket_bought" if claimed else "ticket_lost"
            tx.entries.append(
                LedgerEntry(tx.now, effect.run, effect.round, effect.announcement, kind, amount, Digest(payment_hash), effect.party)
            )
            if not claimed:
                tx.note("warning", "tickets_lost", f"round {effect.round}: {amount} msat were paid for a ticket that never came")
        case TicketFound():
            pass
        case _:
            raise IllegalTransition(f"{effect.owner} ended with {type(outcome).__name__}")


def redeemed(tx: Transaction, input_: TicketRedeemed) -> None:
    """Remember who holds a ticket of a round of ours. The first of each worker counts; for other rounds and people there are none."""
    round_ = tx.get(f"round/{input_.announcement}", Round)
    if round_ is None or input_.worker not in round_.announcement.workers:
        return
    key = f"tickets/{round_.id}"
    row = tx.get(key, Tickets) or Tickets(announcement=round_.id)
    if input_.worker not in row.sold:
        sold = with_item(row.sold, input_.worker, TicketSold(input_.size, input_.token, input_.payment_hash))
        tx.put(key, msgspec.structs.replace(row, sold=sold))
        fee = tx.need("run", Run).manifest.settlement.fee_msat
        if input_.payment_hash not in row.unclaimed:
            tx.book("ticket_sold", round_, fee, input_.payment_hash, input_.worker)
        tx.note("info", "tickets_sold", f"{input_.worker[:8]} holds a ticket of round {round_.announcement.round}")


def holds_ticket(tx: Transaction, run: Run, round_: Round, worker: Pubkey) -> bool:
    """Whether the worker may be offered an escrow: it holds a ticket, or there is no fee."""
    row = tx.get(f"tickets/{round_.id}", Tickets)
    return not charged(run.manifest) or (row is not None and worker in row.sold)
