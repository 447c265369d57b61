"""What may become evidence: the signed events of the rounds that are kept, and the suspicions that they give rise to (decision 7).

Core suspects, `audit` proves (`effects.Prove`): a suspicion that shows nothing is dropped, and nobody hears of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from nostrain.core.fraud.dispute_rows import Heard, Suspicion
from nostrain.core.rounds.scoring import pinned, standings, thermometer
from nostrain.core.rows import Round, Run
from nostrain.core.transaction import Transaction
from nostrain.hashes import sha256_hex
from nostrain.protocol.contradictions import CITED, question
from nostrain.protocol.event import Event
from nostrain.protocol.limits import MAX_EVIDENCE
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import (
    Announcement,
    Attestation,
    Commitment,
    Dispute,
    Enrolment,
    EpochAttestation,
    Message,
    OracleAnnouncements,
    Receipt,
    Result,
    Verdict,
)
from nostrain.units import EventId, Pubkey, UnixTime

MAX_SUSPICIONS_OF_ONE: Final = 4
"""Suspicions against one key in a run; one that is proved is enough."""
SPREAD_S: Final = 20
"""Everyone sees a public contradiction at once: each waits for a part of this that follows from its key, and is silent if another spoke."""


def remember(tx: Transaction, message: Message, *, taken: bool) -> None:
    """Keep the event behind a message that was `taken`, and suspect its author of what it shows together with others.

    One that was not taken (a second answer, say) is evidence only beside one of the same author that was.
    """
    body, event, run = message.body, message.event, tx.run
    if event is None or run is None or isinstance(body, Enrolment | Commitment | Dispute):
        return
    place = message.id if isinstance(body, RunManifest) else body.parent if isinstance(body, Announcement) else body.announcement
    about, prefix = question(body), f"heard-{place}/{type(body).__name__}/{message.author}/"
    if tx.get(prefix + message.id, Heard) is not None:
        return
    if about is not None:
        others = (tx.need(key, Heard) for key in tx.keys(prefix))
        other = next((row.event for row in others if row.about == about), None)
        if other is not None and (isinstance(body, CITED) or other.content != event.content):
            suspect(tx, f"{message.author}/{type(body).__name__}/{about[-1]}", (message.author,), (other, event), tx.now + spread(tx))
    if taken:
        tx.put(prefix + message.id, Heard(event, about))
    match body:
        case OracleAnnouncements() if message.author in run.faulty:
            suspect_oracle(tx, run, message, heard(tx, run, OracleAnnouncements, message.author))
        case Attestation() | EpochAttestation() if not taken and any(
            list(item.digits) != sorted(item.digits, reverse=True) for item in body.items
        ):
            suspect_oracle(tx, run, message, heard_in(tx, body.announcement, OracleAnnouncements, message.author))
        case Attestation() if taken:
            suspect_attestation(tx, run, message, body)
        case Result() if taken and run.halted is not None:
            suspect_result(tx, run, message, body)
        case _:
            pass


def suspect(tx: Transaction, name: str, accused: tuple[Pubkey, ...], events: Iterable[Event], at: int) -> None:
    """Note evidence against `accused`, once for each `name`, which begins with a key. Nobody accuses itself."""
    key, of_one = f"suspicion/{name}", f"suspicion/{accused[0]}/"
    if tx.me.pubkey == accused[0] or tx.get(key, Suspicion) is not None or len(tx.keys(of_one)) >= MAX_SUSPICIONS_OF_ONE:
        return
    found = tuple({event.id: event for event in events}.values())
    if len(found) <= MAX_EVIDENCE:
        tx.put(key, Suspicion(accused, found, UnixTime(at)))


def suspect_oracle(tx: Transaction, run: Run, message: Message, announcements: Iterable[Event]) -> None:
    """A validator's oracle announced or signed what it must not."""
    enrolled = run.enrolled.get(message.author)
    if enrolled is not None and enrolled[2].oracle is not None and message.event is not None:
        name = f"{message.author}/oracle/{message.id}"
        suspect(tx, name, (message.author, enrolled[2].oracle), (*announcements, message.event), tx.now + spread(tx))


def suspect_attestation(tx: Transaction, run: Run, message: Message, body: Attestation) -> None:
    """The levels do not follow from the verdicts that are named, all of which we have; or those are too few."""
    round_ = tx.get(f"round/{body.announcement}", Round)
    if round_ is None or message.event is None or follows(run, round_, body):
        return
    verdicts = (event for event in heard_in(tx, round_.id, Verdict) if event.id in body.verdicts)
    events = (*cornerstones(tx, run, round_), *verdicts, message.event)
    suspect(tx, f"{message.author}/levels/{round_.id}", (message.author,), events, tx.now + spread(tx))


def follows(run: Run, round_: Round, body: Attestation) -> bool:
    """Whether the attested levels are those of the named verdicts, as far as that can be judged (`audit.results`)."""
    spec, known = run.manifest.scoring, dict(round_.verdicts.values())
    if any(event_id not in known for event_id in body.verdicts):
        return True
    if len(set(body.verdicts)) < run.manifest.threshold:
        return False
    if spec.min_provenance_milli_z > 0 and body.round >= spec.plausibility_from_round:
        return True
    expected = standings([known[event_id] for event_id in body.verdicts], pinned(round_), spec, {})
    return all(item.digits == thermometer(expected[item.payee].level, len(spec.levels_ppm)) for item in body.items)


def suspect_result(tx: Transaction, run: Run, message: Message, body: Result) -> None:
    """The result is void, and we stopped there."""
    round_ = tx.get(f"round/{body.announcement}", Round)
    if round_ is None or message.event is None:
        return
    cited = (event for event in heard_in(tx, round_.id, Attestation) if event.id in body.attestations)
    events = (*cornerstones(tx, run, round_), *heard_in(tx, round_.id, Receipt), *cited, message.event)
    suspect(tx, f"{message.author}/result/{round_.id}", (message.author,), events, tx.now + spread(tx))


def cornerstones(tx: Transaction, run: Run, round_: Round) -> tuple[Event, ...]:
    """Manifest and announcement: what every judgement of a round begins with."""
    announced = heard_in(tx, round_.announcement.parent, Announcement)
    return (*heard_in(tx, run.id, RunManifest), *(event for event in announced if event.id == round_.id))


def spread(tx: Transaction) -> int:
    """Our part of SPREAD_S."""
    return int(sha256_hex(bytes.fromhex(tx.me.pubkey))[:8], 16) % SPREAD_S


def heard_in(tx: Transaction, place: EventId, kind: type, author: Pubkey | None = None) -> Iterator[Event]:
    """Events of one type that were taken about one announcement (or parent, or run), of one author or all."""
    prefix = f"heard-{place}/{kind.__name__}/" + ("" if author is None else f"{author}/")
    return (tx.need(key, Heard).event for key in tx.keys(prefix))


def heard(tx: Transaction, run: Run, kind: type, author: Pubkey) -> list[Event]:
    """Events of one type by one author in all the rounds that are kept."""
    return [event for place in places(run) for event in heard_in(tx, place, kind, author)]


def heard_by_id(tx: Transaction, run: Run, ids: Iterable[EventId]) -> tuple[Event, ...]:
    """Those of the events that were taken and are kept."""
    wanted, found = set(ids), []
    for place in places(run):
        found += [tx.need(key, Heard).event for key in tx.keys(f"heard-{place}/") if key.rpartition("/")[2] in wanted]
    return tuple(found)


def places(run: Run) -> tuple[EventId, ...]:
    """Everything under which events are kept: the run, and parents and announcements of its rounds."""
    return tuple(dict.fromkeys((run.id, *run.announcements, *run.announcements.values())))


def forget_round(tx: Transaction, round_: Round) -> None:
    """The round is kept no longer, nor is what was said in it."""
    for prefix in (f"heard-{round_.id}/", f"heard-{round_.announcement.parent}/Announcement/"):
        for key in tx.keys(prefix):
            tx.delete(key)
