"""Signed events, understood and kept beside what they say: what every proof is made of and looked for in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event
from nostrain.protocol.messages import Attestation, AttestationItem, EpochAttestation, Message, OracleAnnouncements, OracleItem
from nostrain.units import EventId, Pubkey
from nostrain.wire.event import encode_event, parse_event_untrusted
from nostrain.wire.messages import read_message_untrusted

B = TypeVar("B")


class Said(NamedTuple):
    """An event and what it says."""

    event: Event
    message: Message


class Finding(NamedTuple):
    """That `accused` (a Nostr key, or an oracle's own) did something, as `events` alone show. `text` is one line for people."""

    accused: Pubkey
    text: str
    events: tuple[Event, ...]


@dataclass(frozen=True)
class Evidence:
    """What was said, by event id, each event once and in order of id. `unread` counts events that say nothing that we understand."""

    said: dict[EventId, Said]
    unread: int

    def of(self, kind: type[B]) -> Iterator[tuple[Said, B]]:
        """Everything of one type of message."""
        for said in self.said.values():
            if isinstance(said.message.body, kind):
                yield said, said.message.body

    def announced(self) -> Iterator[tuple[Said, OracleItem]]:
        """Every oracle announcement. Its own signature is the oracle's, whoever published the event."""
        for said, body in self.of(OracleAnnouncements):
            for item in body.items:
                yield said, item

    def attested(self) -> Iterator[tuple[Said, AttestationItem]]:
        """Every oracle attestation, likewise."""
        for said in self.said.values():
            body = said.message.body
            for item in body.items if isinstance(body, Attestation | EpochAttestation) else ():
                yield said, item


def read_evidence(events: Iterable[Event]) -> Evidence:
    """Understand events, whose ids and signatures are checked here (again): nothing is believed because somebody collected it."""
    said: dict[EventId, Said] = {}
    unread = 0
    for event in sorted({event.id: event for event in events}.values(), key=lambda event: event.id):
        try:
            verified = parse_event_untrusted(encode_event(event))
            said[verified.id] = Said(verified, read_message_untrusted(verified))
        except (RemoteProtocolError, UnicodeEncodeError):
            unread += 1
    return Evidence(said, unread)


def events_of(*said: Said) -> tuple[Event, ...]:
    """The events behind what was said, each once, in the order given."""
    return tuple({one.event.id: one.event for one in said}.values())
