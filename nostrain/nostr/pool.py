"""`ports.relays.Relays` over any number of Nostr relays.

One task per relay dials it, serves the connection and dials again, for ever. Relays share nothing but the subscriptions' queues, so a
relay that is dead, slow or hostile costs the others nothing. docs/nostr.md says what it withstands, and which test shows it.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Final

import msgspec
import trio

from nostrain.errors import ConfigError, LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.nostr.archive import Archive
from nostrain.nostr.information import Inform
from nostrain.nostr.link import Link
from nostrain.nostr.strangers import Strangers
from nostrain.nostr.subscription import Subscription
from nostrain.nostr.transport import Connect, open_websocket
from nostrain.nostr.watch import Member, Settings
from nostrain.ports.signer import Signer
from nostrain.protocol.event import Event, Filter
from nostrain.units import UnixTime

log = logging.getLogger("nostrain.nostr")

STRANGERS_BACKOFF_S: Final = 300.0
"""A relay that others named and that is not there is dialled so rarely in the end."""


class RelayPool:
    """The relays as one: see `ports.relays.Relays`. Made by `open_pool`."""

    def __init__(
        self,
        links: list[Link],
        nursery: trio.Nursery,
        settings: Settings,
        counts: Counter[str],
        archive: Archive,
        now: Callable[[], UnixTime],
        strangers: Strangers | None,
    ) -> None:
        self._links, self._nursery, self._settings = links, nursery, settings
        self._archive, self._now = archive, now
        self._home = tuple(links)
        self._strangers = strangers
        self._quorum = min(settings.quorum or (len(links) + 1) // 2, len(links))
        self._numbers = itertools.count(1)
        self._subscriptions: dict[int, Subscription] = {}
        self.counts = counts
        """How often what happened, over all relays since the start: `bad event`, `duplicate`, `connection lost`, …"""

    @property
    def connected(self) -> tuple[str, ...]:
        """URLs of the relays that are connected now."""
        return tuple(link.url for link in self._links if link.is_connected)

    async def publish(self, event: Event) -> None:
        """See `Relays.publish`. Relays that did not answer by then get the event later, from the archive.

        Cancelling it is safe: the event may or may not be on relays, and sending it again is harmless.
        """
        refusals: dict[str, str] = {}
        taken: dict[str, int] = {}

        async def send_to(link: Link) -> None:
            refusal = await link.deliver(event)
            if refusal is None:
                taken[link.url] = link.connections
            else:
                refusals[link.url] = refusal
            if len(taken) >= self._quorum or not self._possible(refusals):
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + self._settings.publish_timeout_s
            for link in self._links:
                nursery.start_soon(send_to, link)
        if len(taken) >= self._quorum:
            # A relay that was away since it took the event may have forgotten it, and was asked what it has lost before we knew of the quorum.
            self._keep(event, [one for one in self._links if taken.get(one.url) != one.connections and one.url not in refusals])
            return
        reasons = "; ".join(f"{url}: {reason}" for url, reason in refusals.items())
        if not self._possible(refusals):
            raise RemoteProtocolError(f"event {event.id}", f"refused: {reasons}")
        raise Unavailable(f"event {event.id}: {len(taken)} of {self._quorum} relays took it{f'; refused: {reasons}' if reasons else ''}")

    def _possible(self, refusals: Collection[str]) -> bool:
        """Whether a quorum may still be had. Of relays that others named only those count that are there."""
        left = [link for link in self._links if link.url not in refusals and (link in self._home or link.is_connected)]
        return len(left) >= self._quorum

    def meet(self, urls: Sequence[str]) -> None:
        """See `Relays.meet`. At most MAX_RELAYS in all; without `strangers` (see `open_pool`), none."""
        for link in self._strangers.join(urls, self._nursery) if self._strangers is not None else ():
            log.info("relay %s: the run meets there too", link.url)
            self._links.append(link)
            for subscription in self._subscriptions.values():
                link.watch(subscription)

    def forward(self, event: Event, urls: Sequence[str]) -> None:
        """Bring `event` to relays where its recipient reads, as far as they are not ours; later, while they are away. Never waits."""
        guests = self._strangers.guests(urls, self._nursery) if self._strangers is not None else ()
        if guests:
            self._keep(event, guests)

    def _keep(self, event: Event, owed: Sequence[Link]) -> None:
        try:
            self._archive.keep(event, [link.url for link in owed], self._now())
        except Unavailable as error:  # a full disk: it is published, but not everywhere
            self.counts["not archived"] += 1
            log.warning("event %s: %s", event.id, error)
        for link in owed:
            link.owing.set()

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
        self._subscriptions[subscription.number] = subscription
        self._nursery.start_soon(subscription.pump, scope)
        for link in self._links:
            link.watch(subscription)
        try:
            yield subscription.events
        finally:
            scope.cancel()
            del self._subscriptions[subscription.number]
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
    inform: Inform | None = None,
    strangers: Connect | None = None,
    archive: Path | None = None,
) -> AsyncIterator[RelayPool]:
    """A pool of the relays at `urls`, connecting in the background until the context is left.

    `signer` answers NIP-42 challenges (None: never authenticate). `rng` only jitters delays; `connect` dials one URL, `inform`
    reads what a relay says of itself (None: nobody is asked). `strangers` dials relays that others named, and has to look where that leads
    (None: they are not dialled). `archive` is the file of what was published (None: in memory).
    Raises ConfigError: no URL, or one that is not ws:// or wss://, or a damaged archive; Unavailable: the archive's disk fails. As around any nursery, what the body raises leaves in an ExceptionGroup.
    """
    settings = settings or Settings()
    rng = rng or random.Random()
    counts: Counter[str] = Counter()
    links: list[Link] = []
    with closing(Archive(archive)) as kept:

        def link_to(url: str, dial: Connect, guest: bool = False) -> Link:
            treated = settings if dial is connect else msgspec.structs.replace(settings, backoff_last_s=STRANGERS_BACKOFF_S)
            member = Member(url, treated, signer, now, counts, _spare(links, url))
            return Link(member, dial, rng, kept, inform, guest=guest)

        links += [link_to(url, connect) for url in _check_urls(urls)]
        others = None if strangers is None else Strangers(lambda url, guest: link_to(url, strangers, guest), links)
        async with trio.open_nursery() as nursery:
            for link in links:
                nursery.start_soon(link.run)
            yield RelayPool(links, nursery, settings, counts, kept, now, others)
            nursery.cancel_scope.cancel()


def _spare(links: Sequence[Link], url: str) -> Callable[[], bool]:
    """Whether a relay other than `url` is connected; `links` may still grow."""
    return lambda: any(link.is_connected for link in links if link.url != url)
