"""Any value of a message may be anything, and its text may be damaged anywhere: it is read or refused."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event
from nostrain.wire.event import encode_event, parse_event_untrusted
from nostrain.wire.messages import read_message_untrusted
from tests.docs.page import SHOWN
from tests.wire.changed import EVERYTHING, resigned

JUNK: list[Any] = [None, True, -1, 2**62, 2**63, 2**80, 1.5, "", "\u0000", "a\nb", "g" * 64, "ab" * 32, [], {}, [[]], [None], "x" * 5000]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Path of every value inside of a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], junk)
    return copy


def read_or_refuse(event: Event) -> bool:
    """Whether the event was understood. Any error but RemoteProtocolError fails the test."""
    try:
        return read_message_untrusted(event).id == event.id
    except RemoteProtocolError:
        return False


@pytest.mark.parametrize("label", [label for label in SHOWN.values() if label in EVERYTHING])
def test_any_value_may_be_anything(label: str, rng: random.Random) -> None:
    content = json.loads(EVERYTHING[label].content)
    everywhere = list(places(content))
    understood = 0
    for path in rng.sample(everywhere, min(len(everywhere), 12)):
        for junk in JUNK:
            text = json.dumps(replaced(content, path, junk))
            understood += read_or_refuse(resigned(EVERYTHING[label], content=text))
    assert understood < 12 * len(JUNK) / 2, "most of what cannot be is refused"


@pytest.mark.parametrize("label", [label for label in SHOWN.values() if label in EVERYTHING])
def test_mutated_text_is_refused_or_read(label: str, rng: random.Random) -> None:
    original = EVERYTHING[label].content
    for _ in range(60):
        at, end = sorted(rng.choices(range(len(original)), k=2))
        middle = rng.choice(["", original[end : end + 8], '"', "}", "9" * 30, "\\u0000", "é"])
        text = original[:at] + middle + original[rng.choice([at, at + 1, end]) :]
        event = resigned(EVERYTHING[label], content=text)
        assert read_or_refuse(event) in (True, False)
        assert parse_event_untrusted(encode_event(event)) == event
