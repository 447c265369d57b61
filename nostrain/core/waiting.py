"""Messages that refer to something not seen yet: kept, bounded, and tried again when what they wait for arrives.

Relays deliver in no order, and history newest first. What a message waits for is named by a key: an event id, or one of `keys_of`.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from nostrain.core.rows import Round, Run, Waiting
from nostrain.core.transaction import Transaction
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import (
    Acknowledgement,
    Announcement,
    Attestation,
    Dispute,
    Enrolment,
    Message,
    OracleAnnouncements,
    Receipt,
    Reveal,
    VerdictHash,
)
from nostrain.units import EventId, Pubkey

MAX_WAITING: Final = 4096
"""Messages kept while what they refer to has not arrived: about a hundred rounds of a small run, read newest first."""
MAX_WAITING_OF_ONE: Final = 1024
"""Of which one author may have so many, unless it is the coordinator."""


class Orphan(Exception):
    """The message refers to something that has not been seen yet; `missing` is the key that it waits for."""

    def __init__(self, missing: str) -> None:
        super().__init__(missing)
        self.missing = missing


def receipt_key(announcement: EventId) -> str:
    """The receipt of a round."""
    return f"{announcement}/receipt"


def attestations_key(announcement: EventId) -> str:
    """Any attestation of a round."""
    return f"{announcement}/attestations"


def word_key(announcement: EventId, kind: type, author: Pubkey) -> str:
    """What `author` says in a round by a body of type `kind`."""
    return f"{announcement}/{kind.__name__}/{author}"


def enrolment_key(key: Pubkey) -> str:
    """The enrolment of whoever has that key, as its own or as its oracle's."""
    return f"enrolment/{key}"


def keys_of(message: Message) -> frozenset[str]:
    """Everything that others may be waiting for and that this message brings."""
    body = message.body
    keys: set[str] = {message.id}
    match body:
        case Enrolment():
            keys.update(enrolment_key(key) for key in (message.author, body.oracle) if key is not None)
        case Receipt():
            keys.add(receipt_key(body.announcement))
        case Attestation():
            keys.add(attestations_key(body.announcement))
        case Acknowledgement() | VerdictHash() | Reveal():
            keys.add(word_key(body.announcement, type(body), message.author))
        case OracleAnnouncements():
            keys.add(word_key(body.announcement, type(body), message.author))
            keys.update(item.digest for item in body.items)
        case _:
            pass
    return frozenset(keys)


def wait(tx: Transaction, message: Message, missing: str) -> None:
    """Keep `message` until `missing` arrives, or until there is no room for it: what strangers say goes first."""
    key = f"waiting/{message.id}"
    known = tx.get(key, Waiting)
    tx.put(key, Waiting(message, missing, tx.now if known is None else known.since))
    if known is None and len(tx.keys("waiting/")) > MAX_WAITING_OF_ONE:
        make_room(tx, message.author)


def make_room(tx: Transaction, author: Pubkey) -> None:
    """Drop one message if there are too many, or too many of `author`."""
    rows, run = [tx.need(key, Waiting) for key in tx.keys("waiting/")], tx.run
    counts = Counter(row.message.author for row in rows)
    if len(rows) <= MAX_WAITING:
        if counts[author] <= MAX_WAITING_OF_ONE or (run is not None and author == run.coordinator):
            return
        rows = [row for row in rows if row.message.author == author]
    participants = known_participants(tx, run)

    def worth(row: Waiting) -> tuple[bool, bool, int, int, str]:
        speaker = row.message.author
        return run is not None and speaker == run.coordinator, speaker in participants, -counts[speaker], row.since, row.message.id

    dropped = min(rows, key=worth).message
    tx.delete(f"waiting/{dropped.id}")
    tx.note("warning", "orphans_dropped", f"gave up waiting for what event {dropped.id[:8]} of {dropped.author[:8]} refers to")


def known_participants(tx: Transaction, run: Run | None) -> set[Pubkey]:
    """Everyone who enrolled or is listed in a round that is kept."""
    found = set(run.enrolled) if run is not None else set()
    for key in tx.keys("round/"):
        announcement = tx.need(key, Round).announcement
        found |= {*announcement.workers, *(entry.pubkey for entry in announcement.validators)}
    return found


def waiting_for(tx: Transaction, keys: frozenset[str]) -> list[Message]:
    """Messages that wait for one of `keys`, in the order in which they came."""
    rows = [tx.need(key, Waiting) for key in tx.keys("waiting/")]
    return [row.message for row in sorted(rows, key=lambda row: (row.since, row.message.id)) if row.missing in keys]


def forget(tx: Transaction, run: Run) -> None:
    """Drop what waits for rounds that are closed and not kept, or that never were on our chain."""
    for key in tx.keys("waiting/"):
        body = tx.need(key, Waiting).message.body
        if isinstance(body, RunManifest | Enrolment | Dispute) or body.round > run.round:
            continue
        if isinstance(body, Announcement) or tx.get(f"round/{body.announcement}", Round) is None:
            tx.delete(key)
