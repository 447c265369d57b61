"""A coordinator pays the validators their shares of the fees (`core.escrow.split`): saved up, audited, then paid to the offers of their enrolments.

A share can be paid once AUDIT_ROUNDS further rounds are closed, or the run is finished; until then what proves its validator faulty keeps it
back. Amounts are saved up until they are worth a payment. A payment asks the offer for an invoice, which moves no money; the invoice and its hash
are committed before anything is sent; from then on the node is asked what became of it, and the amount is owed again only when it has failed for certain.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.effects import Failed, FetchInvoice, InvoiceFetched, Outcome, PayEnded, PayInvoice
from nostrain.core.escrow.rows import Dues, Share, Split
from nostrain.core.escrow.split import complete, shared, shares
from nostrain.core.rows import Round, Run
from nostrain.core.tables import ShareState, advance
from nostrain.core.timing import not_ahead, release_by
from nostrain.core.transaction import Transaction
from nostrain.errors import IllegalTransition
from nostrain.protocol.ledger import LedgerEntry
from nostrain.units import Digest, Msat, Pubkey, UnixTime

S = ShareState
OPEN: Final = (S.FETCHING, S.PAYING)
AUDIT_ROUNDS: Final = 2
"""Results that follow a round's own before its shares may be paid."""
PAYABLE_MSAT: Final = Msat(400_000)
"""Saved up to this in a run that goes on: 400 vB at 1 sat/vB, what taking an HTLC to the chain costs at the least (design section 6)."""
LEAST_MSAT: Final = Msat(1_000)
"""Paid at the end of the run; less stays with the coordinator."""
RETRY_S: Final = 300
"""After a payment that failed, or an invoice that was not to be had for good, so long until the next try."""


def decide(tx: Transaction) -> None:
    """Credit what closed rounds earned; begin and continue the payments."""
    run = tx.run
    if run is None or run.coordinator != tx.me.pubkey or not shared(run.manifest):
        return
    credit(tx, run)
    for key in tx.keys("dues/"):
        dues = tx.need(key, Dues)
        payment = tx.get(share_key(dues), Share) if dues.payments else None
        if payment is None or payment.state not in OPEN:
            begin(tx, run, key, dues)
        else:
            step(tx, run, share_key(dues), payment)


def share_key(dues: Dues) -> str:
    """Row key of the last payment."""
    return f"share/{dues.validator}/{dues.payments}"


def credit(tx: Transaction, run: Run) -> None:
    """Write down, once and in order, what the rounds whose audit is over have earned whom.

    Verdicts may come later than the attestations that name them: they are waited for as long as attestations are that may release a payment.
    """
    split = tx.get("split", Split) or Split()
    limit = run.round if run.finished else run.round - AUDIT_ROUNDS
    rows = (tx.need(key, Round) for key in tx.keys("round/"))
    ripe = [row for row in rows if row.result is not None and split.through < row.announcement.round <= limit]
    for round_ in sorted(ripe, key=lambda row: row.announcement.round):
        if not complete(run, round_) and tx.now <= release_by(tx, run, round_):
            return
        tx.put("split", Split(through=round_.announcement.round))
        for validator, amount in shares(run, round_).items():
            dues = tx.get(f"dues/{validator}", Dues) or Dues(validator=validator)
            due = Msat(dues.due_msat + amount)
            credited = msgspec.structs.replace(dues, due_msat=due, through=round_.announcement.round, announcement=round_.id)
            tx.put(f"dues/{validator}", credited)


def uncredited(tx: Transaction, run: Run, number: int) -> bool:
    """Whether we have still to write down what a round has earned the validators."""
    split = tx.get("split", Split)
    return run.coordinator == tx.me.pubkey and shared(run.manifest) and number > (0 if split is None else split.through)


def offer_of(run: Run, validator: Pubkey) -> str | None:
    """Where a validator may be paid: the offer of its newest enrolment, unless it is faulty or the run is halted."""
    entry = run.enrolled.get(validator)
    if run.halted is not None or validator in run.faulty or entry is None or entry[2].offer is None:
        return None
    return entry[2].offer.bolt12


def begin(tx: Transaction, run: Run, key: str, dues: Dues) -> None:
    """Start the next payment, if it is worth one and there is an offer to pay it to; the row of the last one goes."""
    worth = dues.due_msat >= (LEAST_MSAT if run.finished else PAYABLE_MSAT)
    offer = offer_of(run, dues.validator)
    retry_at = not_ahead(dues.retry_at, tx.now, RETRY_S)
    if retry_at != dues.retry_at:  # a clock was far ahead
        dues = msgspec.structs.replace(dues, retry_at=retry_at)
        tx.put(key, dues)
    if not worth or offer is None or tx.now < dues.retry_at:
        return
    tx.delete(share_key(dues))
    payment = Share(validator=dues.validator, amount_msat=dues.due_msat)
    dues = msgspec.structs.replace(dues, due_msat=Msat(0), payments=dues.payments + 1)
    tx.put(key, dues)
    tx.put(share_key(dues), payment)
    step(tx, run, share_key(dues), payment)


def step(tx: Transaction, run: Run, key: str, payment: Share) -> None:
    """Emit what the payment calls for. Before anything is sent it can be given up, or go to another offer."""
    if payment.state is S.PAYING and payment.bolt12 is not None and payment.payment_hash is not None:
        tx.emit(
            PayInvoice(owner=key, name="pay", bolt12=payment.bolt12, payment_hash=payment.payment_hash, amount_msat=payment.amount_msat)
        )
        return
    offer = offer_of(run, payment.validator)
    if offer is None:
        give_back(tx, key, payment, tx.now)
        return
    fetch = FetchInvoice(owner=key, name="invoice", offer=offer, amount_msat=payment.amount_msat)
    if tx.outstanding(fetch.id) not in (None, fetch):
        tx.withdraw(key, "invoice")
    tx.emit(fetch)


def give_back(tx: Transaction, key: str, payment: Share, retry_at: UnixTime) -> None:
    """Nothing was paid: the amount is due again."""
    tx.withdraw(key)
    tx.put(key, msgspec.structs.replace(payment, state=advance("share", payment.state, S.FAILED)))
    dues = tx.need(f"dues/{payment.validator}", Dues)
    due = Msat(dues.due_msat + payment.amount_msat)
    tx.put(f"dues/{payment.validator}", msgspec.structs.replace(dues, due_msat=due, retry_at=retry_at))


def entry(tx: Transaction, dues: Dues, payment: Share, payment_hash: Digest) -> LedgerEntry:
    """What the ledger has of a payment: it is for all rounds up to the last one that was credited."""
    run, amount = tx.need("run", Run).id, payment.amount_msat
    return LedgerEntry(tx.now, run, dues.through, dues.announcement, "share_paid", amount, payment_hash, party=payment.validator)


def done(tx: Transaction, key: str, name: str, outcome: Outcome) -> None:
    """Take an outcome of one of a payment's effects."""
    payment = tx.get(key, Share)
    if payment is None or payment.state not in OPEN:
        return
    later, whom = UnixTime(tx.now + RETRY_S), f"{payment.amount_msat} msat of the fees to validator {payment.validator[:8]}"
    match outcome:
        case InvoiceFetched(bolt12=bolt12, payment_hash=payment_hash):
            state = advance("share", payment.state, S.PAYING)
            tx.put(key, msgspec.structs.replace(payment, state=state, bolt12=bolt12, payment_hash=payment_hash))
        case PayEnded(preimage=str(preimage)):
            assert payment.payment_hash is not None  # it was paid for
            tx.put(key, msgspec.structs.replace(payment, state=advance("share", payment.state, S.PAID), preimage=preimage))
            dues = tx.need(f"dues/{payment.validator}", Dues)
            tx.entries.append(entry(tx, dues, payment, payment.payment_hash))
            paid = Msat(dues.paid_msat + payment.amount_msat)
            tx.put(f"dues/{payment.validator}", msgspec.structs.replace(dues, paid_msat=paid))
            tx.note("info", "shares_paid", f"paid {whom}")
        case PayEnded():
            give_back(tx, key, payment, later)
            tx.note("warning", "shares_failed", f"could not pay {whom}; again later")
        case Failed(reason=reason):
            give_back(tx, key, payment, later)
            tx.note("warning", "shares_failed", f"no invoice for {whom}: {reason}; again later")
        case _:
            raise IllegalTransition(f"{key}: {name} ended with {type(outcome).__name__}")
