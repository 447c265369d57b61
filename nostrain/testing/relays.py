"""`ports.relays.Relays` in memory, with seeded faults: the relays of a simulation.

Time is trio's, so under a `MockClock` delays are virtual. Every fault is drawn from a generator keyed by the seed, the participant, the
subscription and the event: what happens to an event does not depend on the order in which trio happens to run the tasks.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import trio

from nostrain.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.protocol.event import Event, Filter
from nostrain.units import EventId
from nostrain.wire.event import encode_event, matches, parse_event_untrusted


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong. Probabilities are per event and subscription (`unavailable`: per call of publish); times are seconds.

    A lost event is found by the next periodic query, on a multiple of `requery_s`. A duplicated one is delivered twice *to the reader*,
    as after a restart or once the real pool's bounded memory has forgotten it. Of the publications that raise Unavailable, half happened.
    """

    loss: float = 0.0
    duplication: float = 0.0
    unavailable: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)
    requery_s: float = 30.0


class FakeRelayNetwork:
    """The events that all participants' relays hold, in order of publication; keeps and replaces them as NIP-01 has it."""

    def __init__(self, seed: int = 0, faults: Faults | None = None) -> None:
        self.seed, self.faults = seed, faults or Faults()
        self.events: dict[EventId, Event] = {}
        self._members: dict[str, FakeRelays] = {}

    @asynccontextmanager
    async def open(self, name: str) -> AsyncIterator[FakeRelays]:
        """The relays as participant `name` sees them, until the context is left; then its subscriptions end and nothing more is delivered.

        Raises LocalProtocolError: `name` is already open. As around any nursery, what the body raises leaves in an ExceptionGroup.
        """
        if name in self._members:
            raise LocalProtocolError(f"the relays of {name} are already open")
        relays = FakeRelays(self, name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relays.deliver)
            self._members[name] = relays
            try:
                yield relays
            finally:
                del self._members[name]
                relays.close()
                nursery.cancel_scope.cancel()

    def draw(self, *key: object) -> random.Random:
        """The generator for one decision, named by `key`."""
        return random.Random("/".join(map(str, (self.seed, *key))))

    def accept(self, event: Event) -> None:
        """Store `event` and pass it on. Raises RemoteProtocolError: it is not valid."""
        if event.id in self.events:
            return
        if parse_event_untrusted(encode_event(event)) != event:
            raise RemoteProtocolError(f"event {event.id}", "invalid: does not survive its encoding", whose=event.pubkey)
        if not 20_000 <= event.kind < 30_000:  # those are ephemeral
            if not self._supersede(event):
                return
            self.events[event.id] = event
        for member in list(self._members.values()):
            member.notice(event)

    def _supersede(self, event: Event) -> bool:
        """Drop the version that a replaceable or addressable `event` replaces; False if the stored one is newer."""
        addressable = 30_000 <= event.kind < 40_000
        if not addressable and event.kind not in (0, 3) and not 10_000 <= event.kind < 20_000:
            return True
        for held in list(self.events.values()):
            if (held.kind, held.pubkey) == (event.kind, event.pubkey) and (not addressable or held.tag("d") == event.tag("d")):
                if (held.created_at, event.id) > (event.created_at, held.id):
                    return False
                del self.events[held.id]
        return True

    def query(self, wanted: Filter) -> list[Event]:
        """Stored events that match, newest first, at most the filter's limit."""
        found = sorted((event for event in self.events.values() if matches(wanted, event)), key=lambda event: (-event.created_at, event.id))
        return found[: wanted.limit]


class _Reader:
    """One open subscription."""

    def __init__(self, number: int, filters: tuple[Filter, ...]) -> None:
        self.number, self.filters = number, filters
        self.known: dict[EventId, None] = {}
        self.send, self.events = trio.open_memory_channel[Event](math.inf)


class FakeRelays:
    """One participant's relays; see `ports.relays.Relays`. Made by `FakeRelayNetwork.open`."""

    def __init__(self, network: FakeRelayNetwork, name: str) -> None:
        self._network, self._name = network, name
        self._readers: dict[int, _Reader] = {}
        self._numbers = itertools.count(1)
        self._attempts: Counter[EventId] = Counter()
        self._due: list[tuple[float, EventId, int, int, Event]] = []
        self._rescheduled = trio.Event()

    async def publish(self, event: Event) -> None:
        """See `Relays.publish`. A checkpoint; takes a draw of the delay before the event is on the relays."""
        self._attempts[event.id] += 1
        rng = self._network.draw("publish", self._name, event.id, self._attempts[event.id])
        await trio.sleep(rng.uniform(*self._network.faults.delay_s))
        fails = rng.random() < self._network.faults.unavailable
        if not fails or rng.random() < 0.5:
            self._network.accept(event)
        if fails:
            raise Unavailable(f"event {event.id}: injected fault")

    @asynccontextmanager
    async def subscribe(self, filters: Sequence[Filter]) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """See `Relays.subscribe`. The queue is unbounded. Raises LocalProtocolError: there is no filter."""
        if not filters:
            raise LocalProtocolError("a subscription needs a filter")
        reader = _Reader(next(self._numbers), tuple(filters))
        self._readers[reader.number] = reader
        for wanted in reader.filters:
            for event in self._network.query(wanted):
                self._schedule(reader, event)
        try:
            yield reader.events
        finally:
            self._readers.pop(reader.number, None)
            reader.send.close()
            reader.events.close()

    def meet(self, urls: Sequence[str]) -> None:
        """See `Relays.meet`: here all relays are one."""

    def notice(self, event: Event) -> None:
        """A new event is on the relays."""
        for reader in self._readers.values():
            if any(matches(wanted, event) for wanted in reader.filters):
                self._schedule(reader, event)

    def _schedule(self, reader: _Reader, event: Event) -> None:
        if event.id in reader.known:
            return
        reader.known[event.id] = None
        faults, now = self._network.faults, trio.current_time()
        rng = self._network.draw("deliver", self._name, reader.number, event.id)
        copies = 2 if rng.random() < faults.duplication else 1
        for copy in range(copies):
            delay = rng.uniform(*faults.delay_s)
            if copy == 0 and rng.random() < faults.loss:
                delay = faults.requery_s * (math.floor((now + delay) / faults.requery_s) + 1) - now
            heapq.heappush(self._due, (now + delay, event.id, reader.number, copy, event))
        self._deliver_due()
        self._rescheduled.set()

    def _deliver_due(self) -> None:
        while self._due and self._due[0][0] <= trio.current_time():
            _, _, number, _, event = heapq.heappop(self._due)
            if number in self._readers:
                try:
                    self._readers[number].send.send_nowait(event)
                except trio.BrokenResourceError:
                    continue  # the reader closed its end before leaving the context

    async def deliver(self) -> None:
        """Hand out what falls due, until cancelled."""
        while True:
            self._deliver_due()
            self._rescheduled = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else math.inf):
                await self._rescheduled.wait()

    def close(self) -> None:
        """End every subscription: readers find the end of their channel."""
        for reader in self._readers.values():
            reader.send.close()
        self._readers.clear()
