"""Five relays in memory that take turns at being down, slow and hostile, and the transports by which real pools reach them."""

from __future__ import annotations

import bisect
import heapq
import itertools
import json
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Final

import trio

from nostrain.errors import Unavailable
from nostrain.nostr.transport import Connect
from nostrain.protocol.event import Event, Filter
from nostrain.testing.filters import parse_filter
from nostrain.units import EventId, Pubkey, UnixTime
from nostrain.wire.event import encode_event, matches, parse_event_untrusted

RELAYS: Final = 5
CAP: Final = 300
"""Events that a relay gives in one answer."""


class Part(Enum):
    """What a relay is, for one shift."""

    DOWN = "down"
    GOOD = "good"
    SLOW = "slow"
    HOSTILE = "hostile"


TURNS: Final = (Part.DOWN, Part.DOWN, Part.GOOD, Part.SLOW, Part.HOSTILE)
"""In this order: the only good relay has always just been away for two shifts, and has missed what the others have."""


class World:
    """All events that were ever published, once; five relays that have some of them."""

    def __init__(self, seed: int, shift_s: float = math.inf, turns: Sequence[Part] = TURNS) -> None:
        self.seed, self.shift_s, self.turns = seed, shift_s, turns
        self.events: dict[EventId, tuple[Event, str]] = {}
        self.relays = {f"ws://relay-{index}": Relay(self, index) for index in range(RELAYS)}
        self.shift = 0

    def connect(self, caller: str) -> Connect:
        """How `caller` dials."""
        return lambda url: self.relays[url].connect(caller)

    async def run(self) -> None:
        """Change shifts until cancelled."""
        async with trio.open_nursery() as nursery:
            for relay in self.relays.values():
                nursery.start_soon(relay.deliver)
            while True:
                await trio.sleep(self.shift_s)
                self.shift += 1
                for relay in self.relays.values():
                    relay.change()

    def known(self, data: Any) -> tuple[Event, str]:
        """The event of a client, verified once for all relays."""
        found = self.events.get(data["id"])
        if found is None:
            event = parse_event_untrusted(data)
            found = self.events[event.id] = event, encode_event(event).decode()
        return found


class Relay:
    """One of them. It keeps what it is given, whatever its part is; a hostile one just does not show all of it."""

    def __init__(self, world: World, index: int) -> None:
        self._world, self._index = world, index
        self._rng = random.Random(f"{world.seed}/{index}")
        self._stored: dict[EventId, None] = {}
        self._by_date: list[tuple[UnixTime, EventId]] = []
        self._wires: dict[Wire, None] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._rescheduled = trio.Event()

    def holds(self, author: Pubkey) -> bool:
        """Whether it has anything by `author`."""
        return any(self._world.events[event_id][0].pubkey == author for event_id in self._stored)

    @property
    def part(self) -> Part:
        """What it is now."""
        return self._world.turns[(self._index + self._world.shift) % RELAYS]

    def change(self) -> None:
        """A new shift began."""
        if self.part is Part.DOWN:
            for wire in list(self._wires):
                wire.drop()

    @asynccontextmanager
    async def connect(self, caller: str) -> AsyncIterator[Wire]:
        """As `nostr.transport.Connect`."""
        await trio.lowlevel.checkpoint()
        if self.part is Part.DOWN:
            raise Unavailable("connection refused")
        wire = Wire(self, caller)
        self._wires[wire] = None
        try:
            yield wire
        finally:
            self._wires.pop(wire, None)

    def later(self, delay: float, act: Callable[[], None]) -> None:
        """Do something in `delay` seconds."""
        heapq.heappush(self._due, (trio.current_time() + delay, next(self._numbers), act))
        self._rescheduled.set()

    async def deliver(self) -> None:
        """Do what falls due, until cancelled."""
        while True:
            while self._due and self._due[0][0] <= trio.current_time():
                heapq.heappop(self._due)[2]()
            self._rescheduled = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else math.inf):
                await self._rescheduled.wait()

    def heard(self, wire: Wire, text: str) -> None:
        """A client said something."""
        if self.part is Part.SLOW:
            wire.upstream = max(wire.upstream, trio.current_time() + self._rng.uniform(0.5, 3))
            self.later(wire.upstream - trio.current_time(), lambda: self._handle(wire, text))
        else:
            self._handle(wire, text)

    def _handle(self, wire: Wire, text: str) -> None:
        match json.loads(text):
            case ["REQ", str(name), wanted]:
                wire.subscriptions[name] = parse_filter(wanted)
                for event_id in self._found(wire.subscriptions[name]):
                    self._show(wire, name, event_id)
                self._tell(wire, f'["EOSE","{name}"]')
            case ["EVENT", event]:
                self._take(event)
                self._tell(wire, f'["OK","{event["id"]}",true,""]')
            case ["CLOSE", str(name)]:
                wire.subscriptions.pop(name, None)

    def _take(self, data: Any) -> None:
        event, _ = self._world.known(data)
        if event.id in self._stored:
            return
        self._stored[event.id] = None
        bisect.insort(self._by_date, (event.created_at, event.id))
        for wire in self._wires:
            for name, wanted in wire.subscriptions.items():
                if matches(wanted, event):
                    self._show(wire, name, event.id)

    def _found(self, wanted: Filter) -> list[EventId]:
        if wanted.ids:
            return [event_id for event_id in wanted.ids if event_id in self._stored]
        last = bisect.bisect_right(self._by_date, (wanted.until, "g")) if wanted.until is not None else len(self._by_date)
        first = bisect.bisect_left(self._by_date, (wanted.since, "")) if wanted.since is not None else 0
        newest = (event_id for _, event_id in reversed(self._by_date[first:last]) if matches(wanted, self._world.events[event_id][0]))
        return list(itertools.islice(newest, min(CAP, wanted.limit or CAP)))

    def _show(self, wire: Wire, name: str, event_id: EventId) -> None:
        text = f'["EVENT","{name}",{self._world.events[event_id][1]}]'
        if self.part is not Part.HOSTILE:
            self._tell(wire, text)
        elif random.Random(f"{event_id}/{self._index}/{self._world.shift}").random() < 0.75:  # the others are withheld
            if self._rng.random() < 0.1:
                wire.say(text.replace('"v\\":1', '"v\\":2').replace('"nostrain"', '"nostrein"'))
            for _ in range(2 if self._rng.random() < 0.3 else 1):
                delay = self._rng.uniform(0, 20) if self._rng.random() < 0.3 else 0.0
                self.later(delay, lambda: wire.say(text))

    def _tell(self, wire: Wire, text: str) -> None:
        if self.part is Part.SLOW:
            wire.downstream = max(wire.downstream, trio.current_time() + self._rng.uniform(0.5, 3))
            self.later(wire.downstream - trio.current_time(), lambda: wire.say(text))
        else:
            wire.say(text)


class Wire:
    """One connection, the client's end being a `nostr.transport.Transport`."""

    date: UnixTime | None = None

    def __init__(self, relay: Relay, caller: str) -> None:
        self._relay, self.caller = relay, caller
        self._down, self._up = trio.open_memory_channel[str](math.inf)
        self.subscriptions: dict[str, Filter] = {}
        self.upstream = self.downstream = 0.0

    async def send(self, text: str) -> None:
        """As the protocol."""
        await trio.lowlevel.checkpoint()
        self._relay.heard(self, text)

    async def receive(self) -> str:
        """As the protocol."""
        try:
            return await self._up.receive()
        except trio.EndOfChannel:
            raise Unavailable("dropped") from None

    async def ping(self) -> None:
        """As the protocol."""
        await trio.lowlevel.checkpoint()

    def say(self, text: str) -> None:
        """To the client, if it is still there."""
        try:
            self._down.send_nowait(text)
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            self.subscriptions.clear()

    def drop(self) -> None:
        """Hang up."""
        self.subscriptions.clear()
        self._down.close()
