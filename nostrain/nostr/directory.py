"""Where others read their mail: their relay lists (NIP-17's 10050, else NIP-65's 10002), looked up on our relays and remembered for a while."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

import trio

from nostrain.ports.relays import Relays
from nostrain.protocol.event import Event, Filter
from nostrain.units import Pubkey
from nostrain.wire import kinds
from nostrain.wire.discovery import read_inboxes_untrusted

log = logging.getLogger("nostrain.nostr")

LOOKUP_S: Final = 5.0
"""How long lists are waited for. A letter is on our own relays meanwhile."""
REMEMBER_S: Final = 3600.0
REMEMBERED: Final = 1_024
LETTERS: Final = 256
"""Letters that may wait for a look-up; more are not brought anywhere else."""
LOOKUPS: Final = 4


class Forwarding(Relays, Protocol):
    """Relays that also bring an event to others' relays: `nostr.pool`."""

    def forward(self, event: Event, urls: Sequence[str]) -> None:
        """See `RelayPool.forward`."""
        ...


class Directory:
    """`run` it in one task; `forward` from others. Seconds of trio's clock."""

    def __init__(self, relays: Forwarding) -> None:
        self._relays = relays
        self._known: dict[Pubkey, tuple[float, tuple[str, ...]]] = {}
        self._send, self._letters = trio.open_memory_channel[tuple[Event, Pubkey]](LETTERS)
        self.counts: Counter[str] = Counter()
        """`not forwarded`: letters for which there was no room."""

    def forward(self, letter: Event, recipient: Pubkey) -> None:
        """Bring `letter` to where `recipient` reads, as soon as that is known. Never waits."""
        try:
            self._send.send_nowait((letter, recipient))
        except trio.WouldBlock:
            self.counts["not forwarded"] += 1

    async def run(self) -> None:
        """Look up and forward until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(LOOKUPS):
                nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        async for letter, recipient in self._letters:
            self._relays.forward(letter, await self.inboxes(recipient))

    async def inboxes(self, recipient: Pubkey) -> tuple[str, ...]:
        """Relays where `recipient` reads its mail, as far as our relays know; from memory, or after LOOKUP_S."""
        until, urls = self._known.get(recipient, (0.0, ()))
        if trio.current_time() < until:
            return urls
        urls = await self._look_up(recipient)
        self._known.pop(recipient, None)
        self._known[recipient] = trio.current_time() + REMEMBER_S, urls
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
        return urls

    async def _look_up(self, recipient: Pubkey) -> tuple[str, ...]:
        newest: dict[int, Event] = {}
        wanted = Filter(authors=(recipient,), kinds=(kinds.INBOX_RELAYS, kinds.RELAY_LIST), limit=16)
        with trio.move_on_after(LOOKUP_S):
            async with self._relays.subscribe([wanted]) as events:
                async for event in events:
                    before = newest.get(event.kind)
                    if before is None or before.created_at < event.created_at:
                        newest[event.kind] = event
        found = newest.get(kinds.INBOX_RELAYS) or newest.get(kinds.RELAY_LIST)
        return read_inboxes_untrusted(found) if found is not None else ()
