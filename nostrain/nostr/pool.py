"""`ports.relays.Relays` over any number of Nostr relays.

One task per relay dials it, serves the connection and dials again, for ever. Relays share nothing but the subscriptions' queues, so a
relay that is dead, slow or hostile costs the others nothing.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from nostrain.errors import ConfigError, LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.nostr.backoff import Backoff
from nostrain.nostr.connection import Connection
from nostrain.nostr.messages import Answer, judge
from nostrain.nostr.subscription import Subscription
from nostrain.nostr.transport import Connect, open_websocket
from nostrain.nostr.watch import Member, Settings, Watch
from nostrain.ports.signer import Signer
from nostrain.protocol.event import Event, Filter
from nostrain.units import UnixTime

log = logging.getLogger("nostrain.nostr")


class _Link:
    """One relay of the pool, connected or not."""

    def __init__(self, member: Member, connect: Connect, rng: random.Random) -> None:
        self._member, self._connect, self._rng = member, connect, rng
        self.url = member.url
        self._connection: Connection | None = None
        self._connected = trio.Event()

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    def _backoff(self) -> Backoff:
        return Backoff(self._rng, self._member.settings.backoff_first_s, self._member.settings.backoff_last_s)

    async def run(self) -> None:
        """Stay connected until cancelled."""
        backoff = self._backoff()
        while True:
            started = trio.current_time()
            try:
                await self._serve()
            except Unavailable as error:
                self._member.counts["connection lost"] += 1
                backoff.lasted(trio.current_time() - started)
                delay = backoff.next()
                log.warning("relay %s: %s; next attempt in %.1f s", self.url, error, delay)
            await trio.sleep(delay)

    async def _serve(self) -> None:
        async with self._connect(self.url) as transport:
            self._connection = Connection(self._member, transport)
            self._connected.set()
            log.info("relay %s: connected", self.url)
            try:
                await self._connection.run()
            finally:
                self._connection, self._connected = None, trio.Event()

    def watch(self, subscription: Subscription) -> None:
        for index in range(len(subscription.filters)):
            watch = Watch(subscription, index, self._member.settings)
            self._member.watches[watch.name] = watch
            if self._connection is not None:
                self._connection.open(watch)

    def unwatch(self, subscription: Subscription) -> None:
        for watch in [watch for watch in self._member.watches.values() if watch.subscription is subscription]:
            del self._member.watches[watch.name]
            if self._connection is not None:
                self._connection.close(watch)

    async def deliver(self, event: Event) -> str | None:
        """Send `event` until the relay answers for good: None when it has it, else its reason for refusing. Tries for ever."""
        backoff = self._backoff()
        while True:
            await self._connected.wait()
            connection = self._connection
            assert connection is not None  # set and cleared together with the event
            try:
                ok = await connection.publish(event)
                match judge(ok.accepted, ok.reason):
                    case Answer.ACCEPTED:
                        return None
                    case Answer.REFUSED:
                        return ok.reason
                    case Answer.AUTHENTICATE if not await connection.authenticated():
                        return ok.reason
            except Unavailable as error:
                log.info("relay %s: event %s: %s", self.url, event.id, error)
            await trio.sleep(backoff.next())


class RelayPool:
    """The relays as one: see `ports.relays.Relays`. Made by `open_pool`."""

    def __init__(self, links: Sequence[_Link], nursery: trio.Nursery, settings: Settings, counts: Counter[str]) -> None:
        self._links, self._nursery, self._settings = links, nursery, settings
        self._quorum = min(settings.quorum or len(links) // 2 + 1, len(links))
        self._numbers = itertools.count(1)
        self.counts = counts
        """How often what happened, over all relays since the start: `bad event`, `duplicate`, `connection lost`, …"""

    @property
    def connected(self) -> tuple[str, ...]:
        """URLs of the relays that are connected now."""
        return tuple(link.url for link in self._links if link.is_connected)

    async def publish(self, event: Event) -> None:
        """See `Relays.publish`. Cancelling it is safe: the event may or may not be on relays, and sending it again is harmless."""
        refusals: dict[str, str] = {}
        taken = 0

        async def send_to(link: _Link) -> None:
            nonlocal taken
            refusal = await link.deliver(event)
            if refusal is None:
                taken += 1
            else:
                refusals[link.url] = refusal
            if taken >= self._quorum or len(refusals) > len(self._links) - self._quorum:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + self._settings.publish_timeout_s
            for link in self._links:
                nursery.start_soon(send_to, link)
        if taken >= self._quorum:
            return
        reasons = "; ".join(f"{url}: {reason}" for url, reason in refusals.items())
        if refusals and not taken:
            raise RemoteProtocolError(f"event {event.id}", f"refused: {reasons}")
        raise Unavailable(f"event {event.id}: {taken} of {self._quorum} relays took it{f'; refused: {reasons}' if reasons else ''}")

    @asynccontextmanager
    async def subscribe(self, filters: Sequence[Filter]) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """See `Relays.subscribe`. Does not wait for a connection; the channel ends when the pool closes.

        Raises LocalProtocolError: there is no filter.
        """
        if not filters:
            raise LocalProtocolError("a subscription needs a filter")
        sizes = {"queue_size": self._settings.queue_size, "dedupe_size": self._settings.dedupe_size}
        subscription = Subscription(next(self._numbers), tuple(filters), **sizes)
        scope = trio.CancelScope()
        self._nursery.start_soon(subscription.pump, scope)
        for link in self._links:
            link.watch(subscription)
        try:
            yield subscription.events
        finally:
            scope.cancel()
            for link in self._links:
                link.unwatch(subscription)
            subscription.events.close()


def _wall_clock() -> UnixTime:
    return UnixTime(int(time.time()))


def _check_urls(urls: Sequence[str]) -> tuple[str, ...]:
    for url in urls:
        if not url.startswith(("ws://", "wss://")):
            raise ConfigError("relays", url, "not a relay address", "write wss://host or ws://host:port")
    if not urls:
        raise ConfigError("relays", list(urls), "no relay", "name at least one")
    return tuple(dict.fromkeys(urls))


@asynccontextmanager
async def open_pool(
    urls: Sequence[str],
    *,
    signer: Signer | None = None,
    settings: Settings | None = None,
    rng: random.Random | None = None,
    now: Callable[[], UnixTime] = _wall_clock,
    connect: Connect = open_websocket,
) -> AsyncIterator[RelayPool]:
    """A pool of the relays at `urls`, connecting in the background until the context is left.

    `signer` answers NIP-42 challenges (None: never authenticate). `rng` only jitters delays; `connect` dials one URL.
    Raises ConfigError: no URL, or one that is not ws:// or wss://. As around any nursery, what the body raises leaves in an ExceptionGroup.
    """
    settings = settings or Settings()
    rng = rng or random.Random()
    counts: Counter[str] = Counter()
    members = [Member(url, settings, signer, now, counts, {}) for url in _check_urls(urls)]
    links = [_Link(member, connect, rng) for member in members]
    async with trio.open_nursery() as nursery:
        for link in links:
            nursery.start_soon(link.run)
        yield RelayPool(links, nursery, settings, counts)
        nursery.cancel_scope.cancel()
