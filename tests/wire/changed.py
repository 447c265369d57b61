"""The messages of docs/protocol.md, and what they are when something in them is changed and signed again."""

from __future__ import annotations

import json

import pytest

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Draft, Event, Tags
from nostrain.units import EventId
from nostrain.wire.messages import read_message_untrusted
from tests.docs.examples import VALIDATORS, WORKERS, Examples

EXAMPLES = Examples()
EVERYTHING = EXAMPLES.events | EXAMPLES.private | EXAMPLES.claims
AUTHOR = WORKERS[0]
ID = EventId("ab" * 32)


def resigned(event: Event, *, content: str | None = None, tags: Tags | None = None, kind: int | None = None) -> Event:
    """The event with something else in it, and an id and signature that fit: by one of the authors of the examples."""
    changed = Draft(
        created_at=event.created_at,
        kind=event.kind if kind is None else kind,
        tags=event.tags if tags is None else tags,
        content=event.content if content is None else content,
    )
    author = next((party for party in (*VALIDATORS, *WORKERS) if party.pubkey == event.pubkey), AUTHOR)
    return author.signer.sign(changed)


def with_content(label: str, **changes: object) -> Event:
    event = EVERYTHING[label]
    return resigned(event, content=json.dumps(json.loads(event.content) | changes))


def refused(event: Event, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason) as raised:
        read_message_untrusted(event)
    assert event.id[:8] in raised.value.what
    assert raised.value.whose == event.pubkey[:8]
