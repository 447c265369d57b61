"""What the coordinator's statements name and we do not have: it is asked for by id, and taken even from an author of whom we keep no more.

Of one author a bounded number of alternatives is kept. Whoever shows us as many others first could make us wait for ever for the one that a
receipt pins, a result cites or an offer is bound to (docs/adr/0051): that one is kept beside them. No more can be named than waits here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from nostrain.core.rounds.speakers import said
from nostrain.core.rows import NodeState, Round, Run, Waiting
from nostrain.core.transaction import Transaction
from nostrain.core.waiting import attestations_key
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.messages import Announcement, Attestation, Confirmation, Message, Offer, Receipt, Result
from nostrain.units import Digest, EventId

MAX_WANTED: Final = 64
"""Events that are asked for at a time: those of three rounds."""
MAX_LACKING: Final = 32
"""Rounds that are asked for at a time, so few that all of their events can wait for the first of them."""


class Wanted(msgspec.Struct, frozen=True):
    """What to ask relays for. Nothing names the events that carry thermometers, so all of a round's are asked for, by its announcement.

    `rounds`: all that was said in them. Of a history longer than what may wait here, most was dropped when it came, newest first.
    """

    ids: tuple[EventId, ...] = ()
    thermometers: tuple[EventId, ...] = ()
    rounds: tuple[int, ...] = ()


def wanted(state: NodeState) -> Wanted:
    """What would let the coordinator's waiting statements be taken: by those that wait longest."""
    run = state.rows.get("run")
    if not isinstance(run, Run):
        return Wanted()
    rows = [row for key in state.groups.get("waiting", ()) if isinstance(row := state.rows[key], Waiting)]
    ids: dict[EventId, None] = {}
    rounds: dict[EventId, None] = {}
    latest = 0
    for row in sorted(rows, key=lambda row: (row.since, row.message.id)):
        body = row.message.body
        if row.message.author != run.coordinator:
            continue
        latest = max(latest, getattr(body, "round", 0))
        if isinstance(body, Announcement):
            ids[body.parent] = None
        elif isinstance(body, Offer) and row.missing in body.oracles:
            rounds[body.announcement] = None
        elif isinstance(body, Receipt | Result | Confirmation | Offer):
            round_ = state.rows.get(f"round/{body.announcement}")
            ids |= dict.fromkeys(absent(round_, row) if isinstance(round_, Round) else (body.announcement,))
    here = {row.message.id: row.message.body for row in rows}
    rounds |= {said.announcement: None for event_id in ids if isinstance(said := here.get(event_id), Attestation)}
    asked = [event_id for event_id in ids if event_id not in here]
    lacking = range(run.round + 1, min(latest, run.round + MAX_LACKING) + 1) if latest > run.round + 1 else ()
    return Wanted(tuple(sorted(asked[:MAX_WANTED])), tuple(sorted(list(rounds)[:MAX_WANTED])), tuple(lacking))


def absent(round_: Round, row: Waiting) -> tuple[EventId, ...]:
    """The events that a waiting statement of this round names and that the round does not have."""
    match row.message.body:
        case Receipt(commitments=named):
            return tuple(event_id for event_id in named if event_id not in round_.commitments)
        case Result(attestations=named) if row.missing == attestations_key(round_.id):
            return tuple(event_id for event_id in named if event_id not in round_.attestations)
        case Confirmation(result=named) if round_.result is None:
            return (named,)
        case _:
            return ()


def waiting_of(tx: Transaction, run: Run, round_: Round) -> Iterator[Message]:
    """The coordinator's statements in a round that wait for something."""
    for key in tx.keys("waiting/"):
        message = tx.need(key, Waiting).message
        if message.author == run.coordinator and getattr(message.body, "announcement", None) == round_.id:
            yield message


def cited(tx: Transaction, run: Run, round_: Round) -> frozenset[EventId]:
    """The commitments and attestations that those statements name."""
    found: set[EventId] = set()
    for message in waiting_of(tx, run, round_):
        match message.body:
            case Receipt(commitments=named) | Result(attestations=named):
                found.update(named)
            case _:
                pass
    return frozenset(found)


def check_room(tx: Transaction, run: Run, round_: Round, message: Message, kept: int, most: int) -> None:
    """Raises RemoteProtocolError when `most` statements of the author are `kept` already; as many again are taken of those that are cited."""
    if kept >= most and (kept >= 2 * most or message.id not in cited(tx, run, round_)):
        raise RemoteProtocolError(said(message), f"more than {most} in one round", whose=message.author[:8])


def relied_on(tx: Transaction, run: Run, round_: Round) -> frozenset[Digest | tuple[str, ...]]:
    """The thermometers that offers are bound to, by digest, and those that cited attestations answer, by nonces."""
    found: set[Digest | tuple[str, ...]] = set()
    for message in waiting_of(tx, run, round_):
        if isinstance(message.body, Offer):
            found.update(message.body.oracles)
    for event_id in cited(tx, run, round_):
        row = tx.get(f"waiting/{event_id}", Waiting)
        if row is not None and isinstance(row.message.body, Attestation):
            found.update(item.nonces for item in row.message.body.items)
    return frozenset(found)
