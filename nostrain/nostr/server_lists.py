"""Where others keep their blobs: their lists of Blossom servers (BUD-03, kind 10063), looked up on our relays and remembered for a while."""

from __future__ import annotations

from typing import Final

import trio

from nostrain.ports.relays import Relays
from nostrain.protocol.event import Event, Filter
from nostrain.units import Pubkey
from nostrain.wire import kinds
from nostrain.wire.discovery import read_servers_untrusted

LOOKUP_S: Final = 5.0
REMEMBER_S: Final = 600.0
NONE_S: Final = 60.0
"""How long it is remembered that there is no list."""
REMEMBERED: Final = 256


class RelayedServerLists:
    """`ports.blobs.ServerLists` over `relays`. Seconds of trio's clock."""

    def __init__(self, relays: Relays) -> None:
        self._relays = relays
        self._known: dict[Pubkey, tuple[float, tuple[str, ...]]] = {}

    async def servers(self, author: Pubkey) -> tuple[str, ...]:
        """As the port; from memory, or after LOOKUP_S."""
        until, urls = self._known.get(author, (0.0, ()))
        if trio.current_time() < until:
            return urls
        self._known.pop(author, None)
        urls = await self._look_up(author)
        self._known[author] = trio.current_time() + (REMEMBER_S if urls else NONE_S), urls
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return urls

    async def _look_up(self, author: Pubkey) -> tuple[str, ...]:
        newest: Event | None = None
        with trio.move_on_after(LOOKUP_S):
            async with self._relays.subscribe([Filter(authors=(author,), kinds=(kinds.BLOB_SERVERS,), limit=8)]) as events:
                async for event in events:
                    if newest is None or newest.created_at < event.created_at:
                        newest = event
        return read_servers_untrusted(newest) if newest is not None else ()
