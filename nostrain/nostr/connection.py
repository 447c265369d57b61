"""One live connection to one relay: reads, writes, pings, pages through history, watches whether answers come (NIP-01).

The reader never waits for anything but the next message, so a slow subscriber can neither starve the pings nor hide an `OK`.
Whatever breaks ends the connection with `Unavailable`; the pool dials again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec
import trio

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr import messages, standing
from nostrain.nostr.answers import Acknowledgements, Stock
from nostrain.nostr.authentication import Authentication
from nostrain.nostr.messages import Answer, OkMessage
from nostrain.nostr.outgoing import Outgoing
from nostrain.nostr.queries import PAGE_SUFFIX, PROBE_SUFFIX, STOCK, Queries
from nostrain.nostr.transport import Transport
from nostrain.nostr.vigil import Vigil
from nostrain.nostr.watch import Member, Watch
from nostrain.protocol.event import Event, Filter
from nostrain.units import EventId, UnixTime
from nostrain.wire.event import ForgedEvent, matches, parse_event_untrusted


class Connection:
    """The protocol over one open transport. `run` it in one task; `publish`, `open` and `close` from others."""

    def __init__(self, member: Member, transport: Transport) -> None:
        self._member, self._transport = member, transport
        self._url, self._settings, self._watches = member.url, member.settings, member.watches
        self._outgoing = Outgoing(transport, self._settings.send_timeout_s, self.fail)
        self._say = self._outgoing.say
        self._acknowledgements = Acknowledgements()
        self._failure: str | None = None
        self._stock: Stock | None = None
        self._vigil = Vigil(trio.current_time(), member.now())
        self._queries = Queries(member, self._vigil, self._say)
        self._auth = Authentication(member.url, member.signer, self._say)
        self._locked: dict[str, None] = {}
        self._reopening: dict[str, None] = {}
        self._refused: set[str] = set()
        self._backoff_s = self._settings.backoff_first_s
        self._nursery: trio.Nursery | None = None

    async def run(self) -> None:
        """Serve until the connection fails: never returns, raises Unavailable. Cancelling it is a normal end."""
        try:
            async with trio.open_nursery() as self._nursery:
                for task in (self._read, self._outgoing.run, self._ping, self._supervise):
                    self._nursery.start_soon(task)
                for watch in list(self._watches.values()):
                    self.open(watch)
        finally:
            self._failure = self._failure or "the connection was closed"
            self._acknowledgements.abandon()
            if self._stock is not None:
                self._stock.end()
        raise Unavailable(self._failure)

    def fail(self, reason: str) -> None:
        """End the connection: `run` will raise Unavailable with `reason` (the first one given)."""
        self._failure = self._failure or reason
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def open(self, watch: Watch) -> None:
        """Subscribe, from where `watch` stands."""
        self._queries.ask(watch.name, watch.query.live())

    def close(self, watch: Watch) -> None:
        """End a subscription."""
        watch.subscription.forget((self._url, watch.name))
        self._locked.pop(watch.name, None)
        for name in (watch.name, watch.name + PAGE_SUFFIX, watch.name + PROBE_SUFFIX):
            self._queries.forget(name)

    async def publish(self, event: Event) -> OkMessage:
        """Send `event` and wait for its OK. Raises Unavailable: the connection ended, or no OK came in time, which ends it."""
        with self._acknowledgements.expected(event.id) as pending:
            self._say(messages.event_message(event))
            if self._failure is None:
                await self._acknowledgements.wait(pending, self._settings.ok_timeout_s, self._settings.ok_timeout_last_s)
        if pending.ok is None:
            self.fail(f"no OK within {self._settings.ok_timeout_s:g} s")
            raise Unavailable(self._failure)
        return pending.ok

    async def authenticated(self) -> bool:
        """Whether the relay knows who we are; see `Authentication.settled`."""
        return await self._auth.settled(self._settings.ok_timeout_s)

    async def missing(self, ids: Sequence[EventId]) -> frozenset[EventId]:
        """Those of `ids`, not more than a page, that the relay does not show. One call at a time. Raises Unavailable: it gives no answer.

        A relay that has shown all of them may close the subscription at once, as nostr-sdk's does: that is an answer.
        """
        stock = self._stock = Stock()
        try:
            self._queries.ask(STOCK, Filter(ids=tuple(ids), limit=len(ids)))
            await stock.done.wait()
        finally:
            self._stock = None
            self._queries.end(STOCK)
        missing = frozenset(ids) - stock.found
        if missing and (self._failure is not None or stock.refusal is not None):
            raise Unavailable(self._failure or f"it does not say what it has: {stock.refusal}")
        return missing

    async def _ping(self) -> None:
        try:
            while True:
                await trio.sleep(self._settings.ping_interval_s)
                with trio.move_on_after(self._settings.ping_timeout_s) as scope:
                    await self._transport.ping()
                if scope.cancelled_caught:
                    self.fail(f"no pong within {self._settings.ping_timeout_s:g} s")
        except Unavailable as error:
            self.fail(str(error))

    async def _supervise(self) -> None:
        """Leave a relay that owes an answer, and after a sleep of the computer; ask a silent one for a sign of life; renew from time to time."""
        renewal = trio.current_time() + self._settings.renewal_interval_s
        while True:
            await trio.sleep(self._settings.check_interval_s)
            at = trio.current_time()
            if slept := self._vigil.slept(at, self._member.now()):
                self.fail(f"the clock jumped by {slept} s: the computer slept, or was set")
            elif self._vigil.overdue(at, self._member.patience_s):
                self._member.counts["no answer"] += 1
                self.fail(f"no answer to a query within {self._member.patience_s:g} s")
                self._member.patience_s = min(2 * self._member.patience_s, self._settings.eose_timeout_last_s)
            elif at >= renewal:
                renewal = at + self._settings.renewal_interval_s
                self._renew()
            elif self._vigil.silent(at, self._settings.probe_interval_s):
                self._probe()

    def _renew(self) -> None:
        """Subscribe again, with the longer overlap, also where we were refused: nothing lasts for ever."""
        for watch in self._watches.values():
            if not watch.query.walking or watch.name in self._refused:
                self._queries.ask(watch.name, watch.query.renewed())
        self._refused.clear()

    def _probe(self) -> None:
        quiet = (watch for name, watch in self._watches.items() if name not in self._refused and not watch.query.walking)
        watch = next(quiet, None)
        if watch is not None:
            self._queries.ask(watch.name + PROBE_SUFFIX, msgspec.structs.replace(watch.wanted, limit=1))

    async def _read(self) -> None:
        try:
            while True:
                data = await self._transport.receive()
                self._vigil.heard(trio.current_time())
                try:
                    self._handle(messages.parse_relay_message_untrusted(data))
                except RemoteProtocolError as error:
                    self._member.count("bad message", str(error))
                    self._blame(standing.GARBLED)
        except Unavailable as error:
            self.fail(str(error))

    def _blame(self, points: int) -> None:
        """Hold a misdeed against the relay, which may put it on the bench, if we can do without it."""
        at, record = trio.current_time(), self._member.standing
        if record.blame(points, at) and self._member.spare():
            self._member.counts["benched"] += 1
            self.fail(f"it misbehaves: benched for {record.bench(at):g} s")

    def _handle(self, message: messages.RelayMessage) -> None:
        match message:
            case messages.EventMessage():
                self._on_event(message)
            case messages.EoseMessage(subscription=subscription):
                self._on_eose(subscription)
            case messages.OkMessage():
                self._on_ok(message)
            case messages.ClosedMessage():
                self._on_closed(message)
            case messages.NoticeMessage(text=text):
                self._member.count("notice", text)
            case messages.AuthMessage(challenge=challenge):
                self._auth.challenged(challenge, UnixTime(min(self._member.now(), self._member.relay_time())))

    def _on_event(self, message: messages.EventMessage) -> None:
        subscription, current = self._queries.named(message.subscription)
        if current:
            self._vigil.heard(trio.current_time(), subscription)
        name, _, part = subscription.partition(":")
        watch = self._watches.get(name)
        try:
            head = messages.parse_head_untrusted(message.raw)
            if name == STOCK and self._stock is not None:
                self._stock.found.add(head.id)
            elif watch is None:
                self._member.counts["unsubscribed"] += 1  # usually on its way when we closed
            elif part == PROBE_SUFFIX[1:]:
                self._on_probe(watch, head.id)
            else:
                self._take(watch, head, message.raw, current)
        except RemoteProtocolError as error:
            self._member.count("bad event", str(error))
            if isinstance(error, ForgedEvent):
                self._blame(standing.FORGED)

    def _on_probe(self, watch: Watch, newest: EventId) -> None:
        if watch.subscription.seen(newest) is None and not watch.query.walking:
            self._member.counts["missed"] += 1  # the relay has forgotten our subscription
            self.open(watch)

    def _take(self, watch: Watch, head: messages.Head, raw: bytes, current: bool) -> None:
        """An event for `watch`; `current`: in answer to what was asked last. Raises RemoteProtocolError."""
        if current:
            watch.query.saw(head.created_at)
        seen = watch.subscription.seen(head.id)
        if seen is not None:
            self._member.counts["duplicate"] += 1
            watch.query.verified(seen, self._member.now())
            return
        event = parse_event_untrusted(raw)
        if not matches(watch.wanted, event):
            self._member.count("unwanted event", f"event {event.id} from {event.pubkey}: does not match the filter")
            self._blame(standing.UNWANTED)
            return
        watch.query.verified(event.created_at, self._member.now())
        if not watch.subscription.offer(event):
            self._member.counts["queue full"] += 1
            if watch.query.lost(event.created_at):
                self._ask_when_room(watch)

    def _on_eose(self, subscription: str) -> None:
        name, current = self._queries.named(subscription)
        if not current:
            return
        self._vigil.answered(name)
        if name == STOCK and self._stock is not None:
            self._stock.end()
        watch = self._watches.get(name.partition(":")[0])
        if watch is None:
            return
        self._member.patience_s = self._settings.eose_timeout_s
        if ":" in name:
            self._queries.end(name)
        if not name.endswith(PROBE_SUFFIX) and watch.query.end_of_page():
            self._ask_when_room(watch)

    def _ask_when_room(self, watch: Watch) -> None:
        watch.subscription.when_room((self._url, watch.name), partial(self._ask_page, watch))

    def _ask_page(self, watch: Watch) -> None:
        if watch.name in self._watches:
            self._queries.ask(watch.name + PAGE_SUFFIX, watch.query.page())

    def _on_ok(self, message: OkMessage) -> None:
        if self._auth.answered(message):
            if message.accepted:
                self._reopen(list(self._locked))
                self._locked.clear()
            else:
                self._member.count("authentication refused", message.reason)
        self._acknowledgements.take(message)

    def _on_closed(self, message: messages.ClosedMessage) -> None:
        closed, current = self._queries.named(message.subscription)
        if not current:
            return
        self._queries.ended(closed)
        if closed == STOCK and self._stock is not None:
            self._stock.end(message.reason)
        name = closed.removesuffix(PAGE_SUFFIX)
        if name not in self._watches:
            return
        if self._watches[name].wanted.ids and not message.reason:
            self._refused.add(name)  # no refusal: it has shown all that was asked for by id (nostr-sdk's relay says so)
            return
        self._member.count("subscription closed", message.reason)
        match messages.judge(False, message.reason):
            case Answer.AUTHENTICATE if not self._auth.accepted:
                self._locked[name] = None
            case Answer.REFUSED:
                self._refused.add(name)
            case Answer.AUTHENTICATE | Answer.RETRY | Answer.ERROR if self._nursery is not None and name not in self._reopening:
                self._reopening[name] = None
                self._nursery.start_soon(self._reopen_later, name)

    async def _reopen_later(self, name: str) -> None:
        delay, self._backoff_s = self._backoff_s, min(2 * self._backoff_s, self._settings.backoff_last_s)
        await trio.sleep(delay)
        self._reopening.pop(name, None)
        self._reopen([name])

    def _reopen(self, names: list[str]) -> None:
        for watch in filter(None, map(self._watches.get, names)):
            self.open(watch)
