"""A relay in memory that a test scripts, and a signer: what the pool's tests talk to instead of sockets."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from coincurve import PrivateKey, PublicKeyXOnly

from nostrain.errors import Unavailable
from nostrain.protocol.event import Draft, Event, Filter
from nostrain.testing.filters import parse_filter
from nostrain.units import EventId, Pubkey, UnixTime
from nostrain.wire.event import encode_event, event_id, matches


class PlainSigner:
    """ports.signer.Signer over a key made of a seed."""

    def __init__(self, seed: str = "alice") -> None:
        secret = hashlib.sha256(seed.encode()).digest()
        self._key = PrivateKey(secret)
        self.pubkey = Pubkey(PublicKeyXOnly.from_secret(secret).format().hex())

    def sign(self, draft: Draft) -> Event:
        digest = event_id(self.pubkey, draft)
        sig = self._key.sign_schnorr(bytes.fromhex(digest), bytes(32)).hex()
        return Event(digest, self.pubkey, draft.created_at, draft.kind, draft.tags, draft.content, sig)


ALICE = PlainSigner()


def note(content: str = "", created_at: int = 1_000, kind: int = 8650, signer: PlainSigner = ALICE) -> Event:
    return signer.sign(Draft(UnixTime(created_at), kind, (("t", "nostrain"),), content))


class Wire:
    """One connection, the client's end being a nostr.transport.Transport."""

    def __init__(self, relay: ScriptedRelay) -> None:
        self._relay = relay
        self.date = relay.date
        self._down, self._up = trio.open_memory_channel[str](math.inf)
        self.subscriptions: dict[str, Filter] = {}

    async def send(self, text: str) -> None:
        if self._relay.ignores_sends:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        message = json.loads(text)
        self._relay.heard.append(message)
        self._relay.on_message(self, message)

    async def receive(self) -> str:
        try:
            return await self._up.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise Unavailable("dropped") from None

    async def ping(self) -> None:
        self._relay.pings += 1
        if self._relay.ignores_pings:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()

    def say(self, *members: Any) -> None:
        self._down.send_nowait(json.dumps(members))

    def say_raw(self, text: str) -> None:
        self._down.send_nowait(text)

    def drop(self) -> None:
        self._down.close()


class ScriptedRelay:
    """Behaves as NIP-01 says, at most `cap` events an answer; attributes and overridden methods make it misbehave."""

    def __init__(self, *events: Event, cap: int = 500) -> None:
        self.events, self.cap = list(events), cap
        self.heard: list[Any] = []
        self.dials = self.pings = 0
        self.down = self.silent = self.ignores_pings = self.ignores_sends = False
        self.verdicts: list[tuple[bool, str] | None] = []
        self.wire: Wire | None = None
        self.date: UnixTime | None = None
        self.connected = trio.Event()

    @asynccontextmanager
    async def connect(self, url: str) -> AsyncIterator[Wire]:
        self.dials += 1
        await trio.lowlevel.checkpoint()
        if self.down:
            raise Unavailable("connection refused")
        self.wire = Wire(self)
        self.connected.set()
        yield self.wire

    def on_message(self, wire: Wire, message: Any) -> None:
        if self.silent:
            return
        match message:
            case ["REQ", name, wanted]:
                self.on_req(wire, name, parse_filter(wanted))
            case ["EVENT", event]:
                self.on_event(wire, event)
            case ["CLOSE", name]:
                wire.subscriptions.pop(name, None)

    def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
        wire.subscriptions[name] = wanted
        found = sorted((event for event in self.events if matches(wanted, event)), key=lambda event: -event.created_at)
        for event in found[: min(self.cap, wanted.limit or self.cap)]:
            wire.say("EVENT", name, json.loads(encode_event(event)))
        wire.say("EOSE", name)

    def on_event(self, wire: Wire, event: Any) -> None:
        verdict = self.verdicts.pop(0) if self.verdicts else (True, "")
        if verdict is not None:
            wire.say("OK", event["id"], *verdict)

    def broadcast(self, event: Event) -> None:
        self.events.append(event)
        assert self.wire is not None
        for name, wanted in self.wire.subscriptions.items():
            if matches(wanted, event):
                self.wire.say("EVENT", name, json.loads(encode_event(event)))

    def requests(self) -> list[Any]:
        return [message for message in self.heard if message[0] == "REQ"]

    def published(self) -> list[EventId]:
        return [message[1]["id"] for message in self.heard if message[0] == "EVENT"]


class Stocked(ScriptedRelay):
    """Keeps what it is given of `made`, as long as it likes."""

    made: list[Event]

    def on_event(self, wire: Wire, event: Any) -> None:
        if event["id"] not in {kept.id for kept in self.events}:
            self.events.append(next(made for made in self.made if made.id == event["id"]))
        super().on_event(wire, event)


def dial(**relays: ScriptedRelay) -> Callable[[str], Any]:
    """A connect factory for the URLs `ws://<name>`."""
    return lambda url: relays[url.removeprefix("ws://")].connect(url)
