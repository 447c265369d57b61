"""A pool on scripted relays, its wall clock, and what a subscriber takes from it."""

from __future__ import annotations

import json
import random
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import trio

from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.nostr.watch import Settings
from nostrain.protocol.event import Event, Filter
from nostrain.units import UnixTime
from nostrain.wire.event import encode_event
from tests.nostr.scripted_relay import PlainSigner, ScriptedRelay, dial

WANTED = Filter(kinds=(8650,))
START = 100_000


class WallClock:
    """Runs with trio's clock, unless it is set."""

    def __init__(self) -> None:
        self.offset = 0

    def now(self) -> UnixTime:
        return UnixTime(START + self.offset + int(trio.current_time()))


def pool(
    signer: PlainSigner | None = None,
    settings: Settings | None = None,
    clock: WallClock | None = None,
    archive: Path | None = None,
    **relays: ScriptedRelay,
) -> AbstractAsyncContextManager[RelayPool]:
    """A pool on `relays` by name; dice and time are the test's."""
    urls = [f"ws://{name}" for name in relays]
    now = (clock or WallClock()).now
    return open_pool(urls, signer=signer, settings=settings, rng=random.Random(7), now=now, connect=dial(**relays), archive=archive)


async def take(events: trio.MemoryReceiveChannel[Event], count: int) -> list[str]:
    """Contents of the next `count` events."""
    with trio.fail_after(1_000):
        return [(await events.receive()).content for _ in range(count)]


def as_object(event: Event) -> Any:
    """As it travels."""
    return json.loads(encode_event(event))
