"""`ports.mail.Mail` in memory, with seeded faults: at-least-once delivery in no order, kept for whoever is away."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from nostrain.errors import Unavailable
from nostrain.protocol.event import Event
from nostrain.units import Pubkey


@dataclass
class FakePostOffice:
    """Every letter ever sent, by recipient. `loss` is the chance that the first delivery of one to an open inbox is skipped."""

    rng: random.Random
    loss: float = 0.0
    unavailable: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)
    requery_s: float = 30.0
    letters: dict[Pubkey, list[Event]] = field(default_factory=lambda: defaultdict(list))
    arrived: trio.Event = field(default_factory=trio.Event)


class FakeMail:
    """One participant's mail."""

    def __init__(self, office: FakePostOffice, pubkey: Pubkey) -> None:
        self._office, self._pubkey = office, pubkey

    async def send(self, event: Event, recipient: Pubkey) -> None:
        """As the port; the same event twice is delivered twice."""
        office = self._office
        await trio.sleep(office.rng.uniform(*office.delay_s))
        if office.rng.random() < office.unavailable:
            raise Unavailable("no relay takes the letter: injected fault")
        office.letters[recipient].append(event)
        arrived, office.arrived = office.arrived, trio.Event()
        arrived.set()

    @asynccontextmanager
    async def inbox(self) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
        """As the port. A skipped letter comes with the next look, `requery_s` later at the latest."""
        send, receive = trio.open_memory_channel[Event](1024)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, send)
            yield receive
            nursery.cancel_scope.cancel()

    async def _deliver(self, send: trio.MemorySendChannel[Event]) -> None:
        delivered: set[int] = set()
        skipped: set[int] = set()
        while True:
            arrived = self._office.arrived
            for index, event in enumerate(self._office.letters[self._pubkey]):
                if index in delivered:
                    continue
                if index not in skipped and self._office.rng.random() < self._office.loss:
                    skipped.add(index)
                    continue
                delivered.add(index)
                await send.send(event)
            with trio.move_on_after(self._office.requery_s):
                await arrived.wait()
