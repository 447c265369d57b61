"""One relay of the pool: dialled for ever, told what we say, and told later what it missed or lost."""

from __future__ import annotations

import logging
import math
import random
from enum import Enum
from typing import Final

import trio

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr.archive import EPHEMERAL, Archive, is_advert
from nostrain.nostr.backoff import Backoff
from nostrain.nostr.connection import Connection
from nostrain.nostr.information import Inform
from nostrain.nostr.limits import parse_information_untrusted
from nostrain.nostr.messages import Answer, judge
from nostrain.nostr.subscription import Subscription
from nostrain.nostr.transport import Connect
from nostrain.nostr.watch import Member, Watch
from nostrain.protocol.event import Event

log = logging.getLogger("nostrain.nostr")

STOCKTAKING_S: Final = 3600.0
STOCK_EVENTS: Final = 1_000
STOCK_PAGE: Final = 100
"""Every hour a relay is asked whether it still has our latest thousand events, so many at a time; when it is connected again, until it has a whole page."""
PATIENCE_S: Final = 600.0
"""A relay that lacked something and comes back within so long is not asked again before the hour is over: it may be one that takes nothing of ours."""

ERRORS: Final = 3
"""After so many errors about an advert it is given up, and after so many, or as many missing answers, another event that is owed is put off."""
SKEW_WARN_S: Final = 60
INFORMATION_S: Final = 3600.0
"""What a relay says of itself is read again after so long."""


class Offered(Enum):
    """What came of offering an event to a relay once: for good, or for now, when the relay is busy, has an error, or nothing was heard of it."""

    TAKEN = "taken"
    REFUSED = "refused"
    BUSY = "busy"
    ERROR = "error"
    MISSED = "missed"


FINAL: Final = frozenset({Offered.TAKEN, Offered.REFUSED})


class Link:
    """One relay, connected or not."""

    def __init__(
        self, member: Member, connect: Connect, rng: random.Random, archive: Archive, inform: Inform | None = None, *, guest: bool = False
    ) -> None:
        self._member, self._connect, self._rng, self._archive, self._inform = member, connect, rng, archive, inform
        self._guest = guest
        """A guest is given what is meant for it, and not asked about the rest."""
        self.url = member.url
        self.owing = trio.Event()
        """Set when the archive has something for this relay, and when it is connected."""
        self.connections = 0
        """How often the relay was connected."""
        self._connection: Connection | None = None
        self._connected = trio.Event()

    @property
    def is_connected(self) -> bool:
        """Whether the relay is connected now."""
        return self._connection is not None

    def _backoff(self) -> Backoff:
        return Backoff(self._rng, self._member.settings.backoff_first_s, self._member.settings.backoff_last_s)

    async def run(self) -> None:
        """Stay connected until cancelled."""
        backoff = self._backoff()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._repay)
            nursery.start_soon(self._read_information)
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
                await self._sit_out()

    async def _sit_out(self) -> None:
        """Wait for the end of the bench, or until no other relay is there."""
        while (left := self._member.standing.benched_s(trio.current_time())) > 0 and self._member.spare():  # noqa: ASYNC110 - others come and go
            await trio.sleep(min(left, self._member.settings.check_interval_s))

    async def _serve(self) -> None:
        async with self._connect(self.url) as transport:
            self._read_clock(transport.date)
            self._connection = Connection(self._member, transport)
            self.connections += 1
            self._connected.set()
            self.owing.set()
            log.info("relay %s: connected", self.url)
            try:
                await self._connection.run()
            finally:
                self._connection, self._connected = None, trio.Event()

    def _read_clock(self, date: int | None) -> None:
        if date is None:
            return
        skew = self._member.skew_s = date - self._member.now()
        if abs(skew) >= SKEW_WARN_S:
            self._member.count("clock differs", f"its clock is {skew} s ahead of ours: check this computer's clock")

    async def _read_information(self) -> None:
        """Ask the relay what it allows, when it is there, and every hour. Beside its connection, which waits for nothing of this."""
        while self._inform is not None:
            await self._connected.wait()
            try:
                limits = self._member.limits = parse_information_untrusted(await self._inform(self.url))
            except (Unavailable, RemoteProtocolError) as error:
                log.info("relay %s: %s", self.url, error)
            else:
                for hindrance in limits.hindrances():
                    self._member.once(hindrance, f"it says {hindrance}: what we publish may be refused there")
            await trio.sleep(INFORMATION_S)

    async def _connection_there(self) -> Connection:
        """The connection, once there is one: it may be lost again before who waited for it runs."""
        while True:
            await self._connected.wait()
            if self._connection is not None:
                return self._connection

    def watch(self, subscription: Subscription) -> None:
        """Follow `subscription` here, through all connections."""
        for index in range(len(subscription.filters)):
            watch = Watch(subscription, index, self._member.settings)
            self._member.watches[watch.name] = watch
            if self._connection is not None:
                self._connection.open(watch)

    def unwatch(self, subscription: Subscription) -> None:
        """Leave it."""
        for watch in [watch for watch in self._member.watches.values() if watch.subscription is subscription]:
            del self._member.watches[watch.name]
            if self._connection is not None:
                self._connection.close(watch)

    async def deliver(self, event: Event) -> str | None:
        """Send `event` until the relay answers for good: None when it has it, else its reason for refusing. Tries for ever.

        What the relay says it does not take (NIP-11) is not sent there: that is a refusal too. So is an error, again and again, about an advert: it
        may have a newer one (nostr-sdk's says `error: unknown` then).
        """
        offered, reason = await self._until(event, math.inf)
        return None if offered is Offered.TAKEN else reason

    async def _until(self, event: Event, most: float) -> tuple[Offered, str]:
        """Offer `event`, with growing pauses, until the relay answers for good, or could not `most` times, its being busy not counted."""
        backoff, errors, failures = self._backoff(), 0, 0
        while True:
            offered, reason = await self._offer(event)
            errors += offered is Offered.ERROR
            failures += offered in (Offered.ERROR, Offered.MISSED)
            if is_advert(event.kind) and errors >= ERRORS:
                return Offered.REFUSED, reason
            if offered in FINAL or failures >= most:
                return offered, reason
            await trio.sleep(backoff.next())

    async def _offer(self, event: Event) -> tuple[Offered, str]:
        """Send `event` once, when the relay is there; what came of it, and why."""
        connection = await self._connection_there()
        limits, now = self._member.limits, self._member.relay_time()
        if (refusal := limits.refuses(event, now)) is not None:
            self._member.counts["not taken there"] += 1
            self._member.once("not taken there", f"kind {event.kind} and its like are not sent there: {refusal}")
            return Offered.REFUSED, refusal
        if limits.early(event, now):
            return Offered.MISSED, "it is from the future there"
        try:
            ok = await connection.publish(event)
            match judge(ok.accepted, ok.reason, ephemeral=event.kind in EPHEMERAL):
                case Answer.ACCEPTED:
                    return Offered.TAKEN, ""
                case Answer.REFUSED if event.created_at <= self._member.relay_time():
                    return Offered.REFUSED, ok.reason  # else it is from the future there, and may be welcome later
                case Answer.REFUSED:
                    return Offered.MISSED, ok.reason
                case Answer.ERROR:
                    return Offered.ERROR, ok.reason
                case Answer.AUTHENTICATE if not await connection.authenticated():
                    return Offered.REFUSED, ok.reason
        except Unavailable as error:
            log.info("relay %s: event %s: %s", self.url, event.id, error)
            return Offered.MISSED, str(error)
        return Offered.BUSY, ok.reason

    async def _repay(self) -> None:
        """Send what the archive has for this relay, one event at a time; take stock when it is connected, and every hour."""
        stocktaking = trio.current_time() + STOCKTAKING_S
        known: Connection | None = None
        lacked, backoff = -math.inf, self._backoff()
        while True:
            await self._connected.wait()
            self.owing = trio.Event()
            try:
                now = trio.current_time()
                hourly, again, known = now >= stocktaking, self._connection is not known and now >= lacked + PATIENCE_S, self._connection
                if hourly:
                    stocktaking = now + STOCKTAKING_S
                if (hourly or again) and not self._guest and await self._take_stock(whole=hourly):
                    lacked = now
                if await self._send_owed(backoff):
                    continue
            except Unavailable as error:
                log.info("relay %s: archive: %s", self.url, error)
                await trio.sleep(self._member.settings.backoff_last_s)
            with trio.move_on_at(math.inf if self._guest else stocktaking):
                await self.owing.wait()

    async def _send_owed(self, backoff: Backoff) -> bool:
        """Offer all that the archive has for this relay; whether something is left. Raises Unavailable: the archive.

        What the relay has an error with again and again, or no answer to, is put off: the others come first, and then it again. Adverts end by themselves.
        """
        after, left = 0, False
        while (owed := self._archive.owed(self.url, after)) is not None:
            number, event = owed
            offered, reason = await self._until(event, math.inf if is_advert(event.kind) else ERRORS)
            if offered not in FINAL:
                after, left = number, True
                self._member.count("put off", f"event {event.id} is offered again after the others: {reason}")
                await trio.sleep(backoff.next())
            else:
                backoff.lasted(math.inf)
                self._archive.settle(self.url, event.id)
                self._member.counts["delivered late" if offered is Offered.TAKEN else "refused late"] += 1
        return left

    async def _take_stock(self, *, whole: bool) -> bool:
        """Find what the relay has lost, newest first; unless the `whole` stock is taken, only as long as something is missing. Whether something is.

        Gift wraps cannot be asked about: one that comes back without anything of our latest page is given the latest of them again, too.
        """
        lost = False
        latest = self._archive.latest(self.url, STOCK_EVENTS)
        size = self._member.limits.ids(STOCK_PAGE)
        for page in (latest[start : start + size] for start in range(0, len(latest), size)):
            connection = self._connection
            if connection is None:
                break
            try:
                missing = await connection.missing(page)
            except Unavailable as error:
                log.info("relay %s: %s", self.url, error)
                break
            self._member.counts["lost by the relay"] += len(missing)
            self._archive.owe(self.url, reversed([id_ for id_ in page if id_ in missing]))
            if not whole and not lost and len(missing) == len(page):
                self._archive.owe(self.url, reversed(self._archive.latest(self.url, STOCK_PAGE, letters=True)))
            lost |= bool(missing)
            if not whole and not missing:
                break
        return lost
