"""Disputes (kind 8658): what we can prove is published, what others claim is checked, and who is proved to cheat is treated so.

A dispute names its evidence by event id. Whoever disputes puts those events on the relays first: signed, they speak for themselves.
A false one changes nothing for the accused and counts against its author. One check at a time runs, and each author has a few.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.effects import CheckDispute, Failed, Ok, Outcome, Prove, Proved, Send, Unheard
from nostrain.core.escrow.rows import Payee
from nostrain.core.fraud.dispute_rows import Complaint, Suspicion
from nostrain.core.fraud.evidence import cornerstones, heard_by_id, heard_in, suspect
from nostrain.core.rows import Round, Run
from nostrain.core.run import discredit, halt, need_run, with_item
from nostrain.core.tables import ComplaintState, PayeeState, SuspicionState, advance
from nostrain.core.transaction import Transaction
from nostrain.core.waiting import Orphan, enrolment_key
from nostrain.errors import IllegalTransition, RemoteProtocolError
from nostrain.protocol.digests import dispute_digest
from nostrain.protocol.messages import Attestation, Dispute, EpochAttestation, Message, Offer, Openings, OracleAnnouncements
from nostrain.units import Pubkey

U, K = SuspicionState, ComplaintState
MAX_FALSE: Final = 3
"""Refuted disputes after which an author is not listened to any more."""
MAX_OF_ONE: Final = 8
"""Disputes of one participant that are not proven."""
MAX_OF_STRANGERS: Final = 64
"""Disputes of everybody else together that are not proven."""
FORKS: Final = ("Announcement", "Receipt", "Result")
"""Of these a coordinator's second one forks the run's chain."""
ENDED: Final = (PayeeState.SETTLED, PayeeState.CANCELLED)


def decide(tx: Transaction) -> None:
    """Take our suspicions further; check the next complaint. A run that was halted is disputed all the same."""
    run = tx.run
    if run is None:
        return
    for key in tx.keys("payee/"):
        suspect_payer(tx, run, tx.need(key, Payee))
    for key in tx.keys("suspicion/"):
        pursue(tx, run, key, tx.need(key, Suspicion))
    if not tx.keys("effect/complaint/"):
        check_next(tx, run)


def suspect_payer(tx: Transaction, run: Run, row: Payee) -> None:
    """An offer of ours was false, and no HTLC hangs on it any more: what it was made of may be shown."""
    name = f"{run.coordinator}/offer/{row.announcement}"
    if row.offer_id is None or not all(level.state in ENDED for level in row.levels) or tx.get(f"suspicion/{name}", Suspicion) is not None:
        return
    unopened = any(level.state is PayeeState.CANCELLED and level.tried >= run.manifest.threshold for level in row.levels)
    if row.refused is None and not unopened:
        return
    round_ = tx.need(f"round/{row.announcement}", Round)
    bound = {item.digest for items in round_.oracles.values() for item in items.values()} & set(row.oracles)
    announced = [
        event
        for author, items in round_.oracles.items()
        if bound & set(items)
        for event in heard_in(tx, round_.id, OracleAnnouncements, author)
    ]
    said = [event for kind in (Offer, Openings, Attestation, EpochAttestation) for event in heard_in(tx, round_.id, kind)]
    suspect(tx, name, (run.coordinator,), (*cornerstones(tx, run, round_), *announced, *said), tx.now)


def pursue(tx: Transaction, run: Run, key: str, row: Suspicion) -> None:
    """Have it proved; then, when it is our turn, publish the evidence and after it the dispute."""
    if row.state is U.PROVING:
        tx.emit(Prove(owner=key, name="prove", run=run.id, accused=row.accused, events=row.events))
    if row.state is not U.PROVED or tx.now < row.at:
        return
    assert row.dispute is not None
    if "/offer/" not in key and disputed(tx, row.dispute):
        save(tx, key, row, U.DROPPED)
        return
    missing = [event for event in row.events if event.id not in row.published]
    for event in missing:
        tx.emit(Send(owner=key, name=f"publish:{event.id}", event=event, recipient=None))
    if not missing:
        tx.say(f"dispute/{dispute_digest(row.dispute)}", row.dispute)
        save(tx, key, row, U.DISPUTED)


def disputed(tx: Transaction, dispute: Dispute) -> bool:
    """Whether the like of the same key was published already, and is proven."""
    rows = (tx.need(key, Complaint) for key in tx.keys("complaint/"))
    same = (row for row in rows if (row.dispute.kind, row.dispute.accused) == (dispute.kind, dispute.accused))
    return any(row.state is K.PROVEN and row.said for row in same)


def save(tx: Transaction, key: str, row: Suspicion, state: SuspicionState) -> None:
    """End a suspicion; its events are not needed any more."""
    tx.withdraw(key)
    tx.put(key, msgspec.structs.replace(row, state=advance("suspicion", row.state, state), events=()))


def fold(tx: Transaction, message: Message, dispute: Dispute) -> None:
    """Somebody's dispute: kept to be checked, if it concerns this run and its author has not claimed too much that was not so.

    Raises Orphan while the accused is nobody: history comes newest first, and an enrolment after what it led to.
    """
    run, key, author = need_run(tx, dispute.run), f"complaint/{dispute_digest(dispute)}", message.author
    known = tx.get(key, Complaint)
    if known is not None and known.state is not K.UNHEARD:
        tx.put(key, msgspec.structs.replace(known, said=True))
        return
    if participant(run, dispute.accused) is None:
        raise Orphan(enrolment_key(dispute.accused))
    if run.accusers.get(author, 0) >= MAX_FALSE:
        raise RemoteProtocolError("dispute", f"by the author of {MAX_FALSE} that were false", whose=author[:8])
    unproven = [row for row in (tx.need(at, Complaint) for at in tx.keys("complaint/")) if row.state is not K.PROVEN]
    stranger = participant(run, author) is None
    theirs = [row for row in unproven if (participant(run, row.author) is None if stranger else row.author == author)]
    if len(theirs) >= (MAX_OF_STRANGERS if stranger else MAX_OF_ONE):
        raise RemoteProtocolError("dispute", f"{len(theirs)} of its like were not proven", whose=author[:8])
    tx.put(key, Complaint(author, dispute))


def participant(run: Run, key: Pubkey) -> Pubkey | None:
    """Who in this run has that key, as its own or as its oracle's; None for a stranger's."""
    if key == run.coordinator or key in run.enrolled:
        return key
    return next((pubkey for pubkey, (_, _, said) in run.enrolled.items() if said.oracle == key), None)


def check_next(tx: Transaction, run: Run) -> None:
    """Have one complaint checked: a participant's before a stranger's."""
    queued = [(key, row) for key in tx.keys("complaint/") if (row := tx.need(key, Complaint)).state is K.QUEUED]
    if queued:
        key, row = min(queued, key=lambda item: (participant(run, item[1].author) is None, item[0]))
        tx.emit(CheckDispute(owner=key, name="check", dispute=row.dispute, events=heard_by_id(tx, run, row.dispute.evidence)))


def done(tx: Transaction, key: str, name: str, outcome: Outcome) -> None:
    """Take an outcome of an effect of a suspicion or a complaint."""
    if key.startswith("complaint/"):
        checked(tx, key, tx.need(key, Complaint), outcome)
        return
    row, run = tx.need(key, Suspicion), tx.need("run", Run)
    match outcome:
        case Proved(dispute=dispute):
            events = tuple(event for event in row.events if event.id in dispute.evidence)
            state = advance("suspicion", row.state, U.PROVED)
            tx.put(key, msgspec.structs.replace(row, state=state, dispute=dispute, events=events))
            at = f"complaint/{dispute_digest(dispute)}"
            before = tx.get(at, Complaint)
            if before is None or before.state is not K.PROVEN:
                tx.withdraw(at)
                tx.put(at, Complaint(tx.me.pubkey, dispute, K.PROVEN, said=before is not None, text=outcome.text))
                convict(tx, run, outcome)
        case Failed() if name == "prove":
            save(tx, key, row, U.DROPPED)
        case Ok():
            published = (*row.published, next(event.id for event in row.events if name == f"publish:{event.id}"))
            tx.put(key, msgspec.structs.replace(row, published=published))
        case Failed(reason=reason):
            tx.note("fault", "disputes_unpublished", f"evidence against {row.accused[0][:8]} was refused by the relays: {reason}")
            save(tx, key, row, U.DROPPED)
        case _:
            raise IllegalTransition(f"{key}: {name} ended with {type(outcome).__name__}")


def checked(tx: Transaction, key: str, row: Complaint, outcome: Outcome) -> None:
    """A complaint was checked."""
    run = tx.need("run", Run)
    match outcome:
        case Proved(text=text):
            tx.put(key, msgspec.structs.replace(row, state=advance("complaint", row.state, K.PROVEN), text=text))
            convict(tx, run, outcome)
        case Failed(reason=reason):
            tx.put(key, msgspec.structs.replace(row, state=advance("complaint", row.state, K.REFUTED), text=reason))
            accusers = with_item(run.accusers, row.author, run.accusers.get(row.author, 0) + 1)
            tx.put("run", msgspec.structs.replace(run, accusers=accusers))
            tx.note("warning", "disputes_refuted", f"{row.author[:8]} accuses {row.dispute.accused[:8]} falsely: {reason}")
        case Unheard():
            tx.put(key, msgspec.structs.replace(row, state=advance("complaint", row.state, K.UNHEARD)))
        case _:
            raise IllegalTransition(f"{key} ended with {type(outcome).__name__}")


def convict(tx: Transaction, run: Run, proved: Proved) -> None:
    """Treat whoever was proved to cheat so: nobody works for such a coordinator, and no coordinator lists such a worker or validator."""
    accused = participant(run, proved.dispute.accused)
    if accused is None:
        return
    known = accused in run.faulty if accused != run.coordinator else run.distrusted or run.halted
    tx.note("info" if known else "fault", "disputes_proven", f"proved: {proved.text}")
    if accused != run.coordinator:
        discredit(tx, accused, proved.text)
    elif proved.about in FORKS or proved.dispute.kind == "void_result":
        halt(tx, run, proved.text)
    elif run.distrusted is None:
        tx.put("run", msgspec.structs.replace(run, distrusted=proved.text))
