"""`ports.mail.Mail` as NIP-59 gift wraps over the relays. Who holds the key wraps and unwraps (`keys.mailbox`); here it only travels."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar

import trio

from nostrain.errors import RemoteProtocolError
from nostrain.nostr.cursor import GIFT_WRAP, GIFT_WRAP_OVERLAP_S
from nostrain.ports.clock import Clock
from nostrain.ports.relays import Relays
from nostrain.protocol.event import Event, Filter
from nostrain.units import EventId, Pubkey, UnixTime

log = logging.getLogger("nostrain.nostr")

REMEMBERED: Final = 65_536
"""Inner ids that an inbox remembers: a letter that is sent again within that many others is handed out once."""

T = TypeVar("T")
Forward = Callable[[Event, Pubkey], None]


class Mailbox(Protocol):
    """Our key's part; both calls block for milliseconds, and any thread may make them."""

    @property
    def pubkey(self) -> Pubkey:
        """The key that mail is addressed to."""
        ...

    def wrap(self, event: Event, recipient: Pubkey) -> Event:
        """A gift wrap of our own `event`. Raises LocalProtocolError."""
        ...

    def unwrap_untrusted(self, wrap: Event) -> Event:
        """The verified event inside, by whoever sealed it. Raises RemoteProtocolError."""
        ...


class GiftWrapMail:
    """Mail over `relays`. `forward` also brings a wrap to where its recipient reads, and does not wait for that. With `threads=False` (simulations) the
    cryptography runs inline."""

    def __init__(self, relays: Relays, mailbox: Mailbox, clock: Clock, *, threads: bool = True, forward: Forward | None = None) -> None:
        self._relays, self._mailbox, self._clock, self._threads, self._forward = relays, mailbox, clock, threads, forward
        self.counts: Counter[str] = Counter()
        """How often what happened since the start: `bad letter`, `duplicate letter`."""

    async def send(self, event: Event, recipient: Pubkey) -> None:
        """See `Mail.send`. Every call makes another wrap of the same event; cancelling it is safe.

        Raises Unavailable; RemoteProtocolError: every relay refused the wrap for good; LocalProtocolError: not our event, or too large.
        """
        wrap = await self._offload(lambda: self._mailbox.wrap(event, recipient))
        if self._forward is not None:
            self._forward(wrap, recipient)
        await self._relays.publish(wrap)

    @asynccontextmanager
    async def inbox(self) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """See `Mail.inbox`. Whatever is no letter to us is counted and dropped; the channel ends when the relays' subscription does.

        A slow reader holds up the relays' subscription, which asks again later: nothing is lost. As around any nursery, what the body
        raises leaves in an ExceptionGroup.
        """
        since = UnixTime(self._clock.now() - GIFT_WRAP_OVERLAP_S)
        wanted = Filter(kinds=(GIFT_WRAP,), tags=(("p", (self._mailbox.pubkey,)),), since=since)
        send, receive = trio.open_memory_channel[Event](0)
        async with self._relays.subscribe([wanted]) as wraps, trio.open_nursery() as nursery:
            nursery.start_soon(self._open_letters, wraps, send)
            with receive:
                yield receive
            nursery.cancel_scope.cancel()

    async def _open_letters(self, wraps: trio.MemoryReceiveChannel[Event], send: trio.MemorySendChannel[Event]) -> None:
        seen: dict[EventId, None] = {}
        with send:
            async for wrap in wraps:
                letter = await self._open(wrap)
                if letter is None:
                    continue
                if letter.id in seen:
                    self.counts["duplicate letter"] += 1
                    continue
                seen[letter.id] = None
                if len(seen) > REMEMBERED:
                    del seen[next(iter(seen))]
                try:
                    await send.send(letter)
                except trio.BrokenResourceError:
                    return  # the reader closed its end before leaving the context

    async def _open(self, wrap: Event) -> Event | None:
        try:
            return await self._offload(lambda: self._mailbox.unwrap_untrusted(wrap))
        except RemoteProtocolError as error:
            self.counts["bad letter"] += 1
            count = self.counts["bad letter"]
            if count <= 16 or count.bit_count() == 1:  # ever fewer lines, so that nobody can fill the disk
                log.warning("mail: bad letter (%d so far) in wrap %s: %s", count, wrap.id[:8], error)
            return None

    async def _offload(self, call: Callable[[], T]) -> T:
        if self._threads:
            return await trio.to_thread.run_sync(call)
        await trio.lowlevel.checkpoint()
        return call()
