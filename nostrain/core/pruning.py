"""Forgetting: rows of rounds long closed go, once no money hangs on them, so that a long run does not make the state grow."""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.escrow import income
from nostrain.core.escrow.rows import Payee, Payer
from nostrain.core.escrow.share import uncredited
from nostrain.core.fraud.evidence import forget_round
from nostrain.core.retention import forget
from nostrain.core.rounds.scoring import PROVENANCE_ROUNDS
from nostrain.core.rows import EpochDuty, Outbox, Replica, Round
from nostrain.core.tables import EpochState, PayeeState, PayerState
from nostrain.core.transaction import Transaction
from nostrain.protocol.limits import MAX_EPOCH_ROUNDS, MAX_ROUNDS
from nostrain.units import EventId

KEEP_ROUNDS: Final = MAX_EPOCH_ROUNDS
"""Rounds whose rows are kept after their result: what plausibility checks, audits and late messages still need."""
MACHINES: Final = ("work", "duty", "epoch", "lead", "payer", "payee", "tickets")


def prune(tx: Transaction) -> None:
    """Drop every round that is KEEP_ROUNDS behind, that our replica, if we keep one, has followed, and that nobody here still works on."""
    run, replica = tx.run, tx.get("replica", Replica)
    if run is None or (replica is None and tx.me.replicates) or run.round <= KEEP_ROUNDS:
        return
    done = []
    for key in tx.keys("round/"):
        round_ = tx.need(key, Round)
        number = round_.announcement.round
        if number > run.round - KEEP_ROUNDS:
            continue  # as most rounds are: nothing else is looked up for them, of which there is much, and at every step
        followed = replica is None or (replica.round >= number and replica.confirming != round_.id)
        if followed and not money_open(tx, round_.id) and not uncredited(tx, run, number) and number < unattested(tx):
            done.append(round_)
    for round_ in done:
        drop(tx, round_)
    if done:
        dropped = {round_.id for round_ in done}
        announcements = {parent: child for parent, child in run.announcements.items() if child not in dropped}
        results = {announcement: result for announcement, result in run.results.items() if announcement not in dropped}
        tx.put("run", msgspec.structs.replace(run, announcements=announcements, results=results))
        forget(tx, done)


def unattested(tx: Transaction) -> int:
    """Number of the first round that the pay of the oldest epoch that we have still to attest follows from: plausibility looks back from its first."""
    duties = [tx.need(key, EpochDuty) for key in tx.keys("epoch/")]
    open_ = [tx.need(f"round/{duty.announcement}", Round) for duty in duties if duty.state not in (EpochState.ATTESTED, EpochState.SILENT)]
    first = min((round_.announcement.round for round_ in open_), default=None)
    return MAX_ROUNDS + 1 if first is None else first - PROVENANCE_ROUNDS + 1


def drop(tx: Transaction, round_: Round) -> None:
    """Delete everything about one round, and take back what was still to be done for it."""
    tx.delete(f"round/{round_.id}")
    forget_round(tx, round_)
    for machine in MACHINES:
        for key in tx.keys(f"{machine}/{round_.id}"):
            tx.withdraw(key)
            tx.delete(key)
    for key in tx.keys("outbox/"):
        if round_.id in key or key == f"outbox/announcement/{round_.announcement.parent}":
            tx.withdraw(key)
            tx.delete(key)
    old = f"outbox/enrolment/{round_.announcement.round}"
    if tx.get(old, Outbox) is not None:
        tx.withdraw(old)
        tx.delete(old)


def money_open(tx: Transaction, announcement: EventId) -> bool:
    """Whether an escrow of the round has not ended, or is still being given back, or a ticket of it that is paid may still be claimed."""
    payers = (tx.need(key, Payer) for key in tx.keys(f"payer/{announcement}"))
    payees = (tx.need(key, Payee) for key in tx.keys(f"payee/{announcement}"))
    if any(level.state not in (PayerState.PAID, PayerState.FAILED) for row in payers for level in row.levels):
        return True
    if any(level.state not in (PayeeState.SETTLED, PayeeState.CANCELLED) for row in payees for level in row.levels):
        return True
    if income.pending(tx, announcement):
        return True
    return any("#cancel:" in key or "#settle:" in key for key in tx.keys(f"effect/payee/{announcement}"))
