"""What a heap of events says about disputes: each one with its verdict, for people and programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from nostrain.audit.dispute import check_dispute
from nostrain.audit.evidence import read_evidence
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event
from nostrain.protocol.messages import Dispute, ProofKind
from nostrain.units import EventId, Pubkey


class Judged(msgspec.Struct, frozen=True):
    """A dispute, and what became of it: `open` while evidence is missing. `why` is one line; `missing` names what was not among the events."""

    dispute: EventId
    author: Pubkey
    run: EventId
    kind: ProofKind
    accused: Pubkey
    verdict: Literal["proven", "false", "open"]
    why: str
    evidence: tuple[EventId, ...]
    missing: tuple[EventId, ...] = ()


def judged(events: Iterable[Event]) -> list[Judged]:
    """Every dispute among `events`, judged by the others of them; in order of id."""
    evidence = read_evidence(events)
    found = []
    for said, body in evidence.of(Dispute):
        there = [evidence.said[event_id].event for event_id in body.evidence if event_id in evidence.said]
        missing = tuple(event_id for event_id in body.evidence if event_id not in evidence.said)
        verdict: Literal["proven", "false", "open"] = "open"
        why = f"{len(missing)} of {len(body.evidence)} events that it names are not there"
        if not missing:
            try:
                verdict, why = "proven", check_dispute(body, there).text
            except RemoteProtocolError as error:
                verdict, why = "false", str(error)
        whom = (said.event.id, said.message.author, body.run, body.kind, body.accused)
        found.append(Judged(*whom, verdict, why, body.evidence, missing))
    return found
