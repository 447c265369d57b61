"""What a stranger can read of a run: everything that relays keep of it, without a key, a daemon or anybody's help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import trio

from nostrain.errors import Unavailable
from nostrain.nostr.pool import open_pool
from nostrain.protocol.event import Event, Filter
from nostrain.units import EventId
from nostrain.wire import kinds

QUIET_S: Final = 3.0
"""Relays that send nothing for so long have sent what they had."""
CONNECT_S: Final = 10.0
"""How long the first event may take."""
MAX_EVENTS: Final = 100_000


async def read_run(relays: Sequence[str], run: EventId) -> list[Event]:
    """Every event of a run, verified, and private ones that were published as evidence.

    Raises ConfigError for what is no relay's URL, Unavailable when no relay can be reached: that says nothing about the run.
    """
    of_run = (*kinds.PUBLIC, kinds.OFFER, kinds.OPENING, kinds.INVOICES)
    filters = [Filter(ids=(run,)), Filter(kinds=of_run, tags=(("d", (run,)),))]
    found: dict[EventId, Event] = {}
    async with open_pool(relays) as pool, pool.subscribe(filters) as events:
        while len(found) < MAX_EVENTS:
            with trio.move_on_after(QUIET_S if found else CONNECT_S) as patience:
                event = await events.receive()
                found[event.id] = event
            if patience.cancelled_caught:
                break
        reached = pool.connected
    if not found and not reached:
        raise Unavailable(f"{', '.join(relays)}: not reached")
    return list(found.values())
