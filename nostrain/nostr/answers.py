"""Who waits for which answer of a relay: the `OK` of an event, the list of what it has. No I/O."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import trio

from nostrain.nostr.messages import OkMessage
from nostrain.units import EventId


class Pending:
    """Somebody waits for the OK of an event; without one, `done` is set when the connection ends."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.ok: OkMessage | None = None


class Acknowledgements:
    """All who wait for an OK on one connection."""

    def __init__(self) -> None:
        self._pending: dict[EventId, list[Pending]] = {}
        self._latest = 0.0

    @contextmanager
    def expected(self, event_id: EventId) -> Iterator[Pending]:
        """Wait for the OK of this event while the context is open."""
        pending = Pending()
        self._pending.setdefault(event_id, []).append(pending)
        try:
            yield pending
        finally:
            self._pending[event_id].remove(pending)
            if not self._pending[event_id]:
                del self._pending[event_id]

    async def wait(self, pending: Pending, patience_s: float, longest_s: float) -> None:
        """Return once it is answered, or abandoned; or when no OK at all has come for `patience_s`, this one not for `longest_s`.

        A relay that writes its events to disk one by one answers the last of a burst long after the first; that is no silence.
        """
        begun = trio.current_time()
        while not pending.done.is_set():
            until = min(max(begun, self._latest) + patience_s, begun + longest_s)
            if until <= trio.current_time():
                return
            with trio.move_on_at(until):
                await pending.done.wait()

    def take(self, ok: OkMessage) -> None:
        """An OK came. A refusal of nothing in particular is taken for that of the only event under way; among several it says nothing."""
        self._latest = trio.current_time()
        event_id = ok.event_id
        if event_id is None and len(self._pending) == 1:
            (event_id,) = self._pending
        for pending in self._pending.get(event_id, ()) if event_id is not None else ():
            pending.ok = ok
            pending.done.set()

    def abandon(self) -> None:
        """None will come any more."""
        for waiting in self._pending.values():
            for pending in waiting:
                pending.done.set()


class Stock:
    """Somebody asks which events the relay has."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.found: set[EventId] = set()
        self.refusal: str | None = None

    def end(self, refusal: str | None = None) -> None:
        """The answer is complete, or there is none."""
        self.refusal = refusal
        self.done.set()
