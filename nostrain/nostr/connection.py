"""One live connection to one relay: reads, writes, pings, pages through history, answers AUTH challenges (NIP-01, NIP-42).

The reader never waits for anything but the next message, so a slow subscriber can neither starve the pings nor hide an `OK`.
Whatever breaks ends the connection with `Unavailable`; the pool dials again.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final

import trio

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr import messages
from nostrain.nostr.messages import Answer, OkMessage
from nostrain.nostr.transport import Transport
from nostrain.nostr.watch import Member, Watch
from nostrain.protocol.event import Draft, Event
from nostrain.units import EventId
from nostrain.wire.event import matches, parse_event_untrusted

log = logging.getLogger("nostrain.nostr")

OUTBOX_MESSAGES: Final = 1_024
MAX_CHALLENGES: Final = 8
PAGE_SUFFIX: Final = ":page"


class _Pending:
    """Somebody waits for the OK of an event."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.ok: OkMessage | None = None


class Connection:
    """The protocol over one open transport. `run` it in one task; `publish`, `open` and `close` from others."""

    def __init__(self, member: Member, transport: Transport) -> None:
        self._member, self._transport = member, transport
        self._url, self._settings, self._watches = member.url, member.settings, member.watches
        self._outbox, self._unsent = trio.open_memory_channel[str](OUTBOX_MESSAGES)
        self._pending: dict[EventId, list[_Pending]] = {}
        self._failure: str | None = None
        self._challenges = 0
        self._auth_id: EventId | None = None
        self._locked: dict[str, None] = {}
        self._reopening: dict[str, None] = {}
        self._backoff_s = self._settings.backoff_first_s
        self._nursery: trio.Nursery | None = None
        self._auth_answered = trio.Event()
        self._authenticated = False

    async def run(self) -> None:
        """Serve until the connection fails: never returns, raises Unavailable. Cancelling it is a normal end."""
        try:
            async with trio.open_nursery() as self._nursery:
                for task in (self._read, self._write, self._ping):
                    self._nursery.start_soon(task)
                for watch in list(self._watches.values()):
                    self.open(watch)
        finally:
            self._failure = self._failure or "the connection was closed"
            for waiting in self._pending.values():
                for pending in waiting:
                    pending.done.set()
        raise Unavailable(self._failure)

    def fail(self, reason: str) -> None:
        """End the connection: `run` will raise Unavailable with `reason` (the first one given)."""
        self._failure = self._failure or reason
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def open(self, watch: Watch) -> None:
        """Subscribe, from where `watch` stands."""
        self._say(messages.req_message(watch.name, [watch.query.live()]))

    def close(self, watch: Watch) -> None:
        """End a subscription."""
        watch.subscription.forget((self._url, watch.name))
        self._locked.pop(watch.name, None)
        self._say(messages.close_message(watch.name))
        self._say(messages.close_message(watch.name + PAGE_SUFFIX))

    async def publish(self, event: Event) -> OkMessage:
        """Send `event` and wait for its OK. Raises Unavailable: the connection ended, or no OK came in time, which ends it."""
        pending = _Pending()
        self._pending.setdefault(event.id, []).append(pending)
        try:
            self._say(messages.event_message(event))
            with trio.move_on_after(self._settings.ok_timeout_s):
                if self._failure is None:
                    await pending.done.wait()
        finally:
            self._pending[event.id].remove(pending)
            if not self._pending[event.id]:
                del self._pending[event.id]
        if pending.ok is None:
            self.fail(f"no OK within {self._settings.ok_timeout_s:g} s")
            raise Unavailable(self._failure)
        return pending.ok

    async def authenticated(self) -> bool:
        """Whether the relay knows who we are; waits for a challenge under way. False without a signer, when refused, or after a timeout."""
        if self._member.signer is not None:
            with trio.move_on_after(self._settings.ok_timeout_s):
                await self._auth_answered.wait()
        return self._authenticated

    def _say(self, text: str) -> None:
        try:
            self._outbox.send_nowait(text)
        except trio.WouldBlock:
            self.fail("it does not read what we send")

    async def _write(self) -> None:
        try:
            async for text in self._unsent:
                with trio.move_on_after(self._settings.send_timeout_s) as scope:
                    await self._transport.send(text)
                if scope.cancelled_caught:
                    self.fail("it does not read what we send")
        except Unavailable as error:
            self.fail(str(error))

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

    async def _read(self) -> None:
        try:
            while True:
                data = await self._transport.receive()
                try:
                    self._handle(messages.parse_relay_message_untrusted(data))
                except RemoteProtocolError as error:
                    self._count("bad message", str(error))
        except Unavailable as error:
            self.fail(str(error))

    def _count(self, reason: str, detail: str) -> None:
        """Count every misdeed; log the first ones, then ever fewer, so that nobody can fill the disk."""
        self._member.counts[reason] += 1
        count = self._member.counts[reason]
        if count <= 16 or count.bit_count() == 1:
            log.warning("relay %s: %s (%d so far): %s", self._url, reason, count, detail)

    def _handle(self, message: messages.RelayMessage) -> None:
        match message:
            case messages.EventMessage():
                self._on_event(message)
            case messages.EoseMessage(subscription=name):
                self._on_eose(name)
            case messages.OkMessage():
                self._on_ok(message)
            case messages.ClosedMessage():
                self._on_closed(message)
            case messages.NoticeMessage(text=text):
                self._count("notice", text)
            case messages.AuthMessage(challenge=challenge):
                self._on_challenge(challenge)

    def _on_event(self, message: messages.EventMessage) -> None:
        watch = self._watches.get(message.subscription.removesuffix(PAGE_SUFFIX))
        if watch is None:
            self._member.counts["unsubscribed"] += 1  # usually on its way when we closed
            return
        try:
            head = messages.parse_head_untrusted(message.raw)
            watch.query.saw(head.created_at, self._member.now())
            if watch.subscription.has_seen(head.id):
                self._member.counts["duplicate"] += 1
                return
            event = parse_event_untrusted(message.raw)
        except RemoteProtocolError as error:
            self._count("bad event", str(error))
            return
        if not matches(watch.wanted, event):
            self._count("unwanted event", f"event {event.id} from {event.pubkey}: does not match the filter")
        elif not watch.subscription.offer(event):
            self._member.counts["queue full"] += 1
            if watch.query.lost(event.created_at):
                self._ask_when_room(watch)

    def _on_eose(self, name: str) -> None:
        watch = self._watches.get(name.removesuffix(PAGE_SUFFIX))
        if watch is None:
            return
        if name.endswith(PAGE_SUFFIX):
            self._say(messages.close_message(name))
        if watch.query.end_of_page():
            self._ask_when_room(watch)

    def _ask_when_room(self, watch: Watch) -> None:
        watch.subscription.when_room((self._url, watch.name), partial(self._ask_page, watch))

    def _ask_page(self, watch: Watch) -> None:
        if watch.name in self._watches:
            self._say(messages.req_message(watch.name + PAGE_SUFFIX, [watch.query.page()]))

    def _on_ok(self, message: OkMessage) -> None:
        if message.event_id == self._auth_id:
            self._authenticated = message.accepted
            self._auth_answered.set()
            if message.accepted:
                self._reopen(list(self._locked))
                self._locked.clear()
            else:
                self._count("authentication refused", message.reason)
        for pending in self._pending.get(message.event_id, ()):
            pending.ok = message
            pending.done.set()

    def _on_closed(self, message: messages.ClosedMessage) -> None:
        name = message.subscription.removesuffix(PAGE_SUFFIX)
        if name not in self._watches:
            return
        self._count("subscription closed", message.reason)
        match messages.judge(False, message.reason):
            case Answer.AUTHENTICATE if not self._authenticated:
                self._locked[name] = None
            case Answer.AUTHENTICATE | Answer.RETRY if self._nursery is not None and name not in self._reopening:
                self._reopening[name] = None
                self._nursery.start_soon(self._reopen_later, name)

    async def _reopen_later(self, name: str) -> None:
        delay, self._backoff_s = self._backoff_s, min(2 * self._backoff_s, self._settings.backoff_last_s)
        await trio.sleep(delay)
        self._reopening.pop(name, None)
        self._reopen([name])

    def _reopen(self, names: list[str]) -> None:
        for name in names:
            watch = self._watches.get(name)
            if watch is not None:
                self.open(watch)

    def _on_challenge(self, challenge: str) -> None:
        self._challenges += 1
        if self._member.signer is None or self._challenges > MAX_CHALLENGES:
            return
        tags = (("relay", self._url), ("challenge", challenge))
        event = self._member.signer.sign(Draft(self._member.now(), messages.AUTH_KIND, tags, ""))
        self._auth_id = event.id
        self._say(messages.auth_message(event))
