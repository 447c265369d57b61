"""A pool on scripted relays, and what a subscriber takes from it."""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager

import trio

from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.nostr.watch import Settings
from nostrain.protocol.event import Event, Filter
from nostrain.units import UnixTime
from tests.nostr.scripted_relay import PlainSigner, ScriptedRelay, dial

WANTED = Filter(kinds=(8650,))
NOW = UnixTime(100_000)


def pool(
    signer: PlainSigner | None = None, settings: Settings | None = None, **relays: ScriptedRelay
) -> AbstractAsyncContextManager[RelayPool]:
    urls = [f"ws://{name}" for name in relays]
    return open_pool(urls, signer=signer, settings=settings, rng=random.Random(7), now=lambda: NOW, connect=dial(**relays))


async def take(events: trio.MemoryReceiveChannel[Event], count: int) -> list[str]:
    """Contents of the next `count` events."""
    with trio.fail_after(1_000):
        return [(await events.receive()).content for _ in range(count)]
