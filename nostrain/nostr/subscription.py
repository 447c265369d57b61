"""One subscription of ours across all relays: a bounded queue towards its reader, and the verified ids that it already holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

import trio

from nostrain.protocol.event import Event, Filter
from nostrain.units import EventId, UnixTime


class Subscription:
    """Relay connections `offer` verified events and never wait; `pump` hands them to the reader at the reader's pace.

    When the queue is full an offer is declined, and the connection asks the relay again once `when_room` calls back:
    so a slow reader costs bandwidth, not events, and cannot stall the connection that other subscriptions share.
    """

    def __init__(self, number: int, filters: tuple[Filter, ...], *, queue_size: int, dedupe_size: int) -> None:
        self.number, self.filters = number, filters
        self._queue_size, self._dedupe_size = queue_size, dedupe_size
        self._queue: deque[Event] = deque()
        self._seen: dict[EventId, UnixTime] = {}
        self._filled = trio.Event()
        self._wanting_room: dict[Hashable, Callable[[], None]] = {}
        self._send, self.events = trio.open_memory_channel[Event](0)

    def seen(self, event_id: EventId) -> UnixTime | None:
        """The date of the *verified* event of this id that was taken, as far back as the bounded memory goes; None: there was none."""
        return self._seen.get(event_id)

    def offer(self, event: Event) -> bool:
        """Queue a verified event; False if there is no room, in which case nothing is remembered of it."""
        if len(self._queue) >= self._queue_size:
            return False
        self._seen[event.id] = event.created_at
        if len(self._seen) > self._dedupe_size:
            del self._seen[next(iter(self._seen))]
        self._queue.append(event)
        self._filled.set()
        return True

    def when_room(self, key: Hashable, ask: Callable[[], None]) -> None:
        """Call `ask` as soon as half the queue is free, perhaps at once. A later call with the same `key` replaces an earlier one."""
        if self._half_empty():
            ask()
        else:
            self._wanting_room[key] = ask

    def forget(self, key: Hashable) -> None:
        """Withdraw what `when_room` was given under `key`."""
        self._wanting_room.pop(key, None)

    def _half_empty(self) -> bool:
        return len(self._queue) <= self._queue_size // 2

    async def pump(self, scope: trio.CancelScope) -> None:
        """Feed the reader until `scope` is cancelled or the reader closes its end; then the reader finds the end of the channel."""
        with scope, self._send:
            while True:
                while not self._queue:
                    self._filled = trio.Event()
                    await self._filled.wait()
                try:
                    await self._send.send(self._queue.popleft())
                except trio.BrokenResourceError:
                    return
                if self._wanting_room and self._half_empty():
                    asks, self._wanting_room = self._wanting_room, {}
                    for ask in asks.values():
                        ask()
