"""One blob from several sources into one file. The next source is asked when one is late for what it used to be, and whoever sends first goes on
alone; where a transfer breaks, another source goes on from there. What came from several is judged when the blob is known: see `culprit`.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import trio

from nostrain.blobs.download import MOST_RESUMPTIONS, Disagrees, Download, NotThere
from nostrain.blobs.incoming import STEP, StorageFull
from nostrain.blobs.scores import Scores
from nostrain.blobs.urls import Source
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.units import Digest

_AT_ONCE: Final = 2
"""Sources that are asked side by side."""

Fault = RemoteProtocolError | Unavailable


class Part(NamedTuple):
    """What `source` sent of a file: from where the part before it ends, to `end`; `digest` is the SHA-256 of everything up to there.

    The source is None for what an earlier call left: nobody is blamed for it.
    """

    source: Source | None
    end: int
    digest: Digest


@dataclass
class _Leg:
    """One stretch of a transfer: who was asked, who leads, and what is new."""

    leader: Source | None = None
    running: dict[Source, trio.CancelScope] = field(default_factory=dict)
    changed: trio.Event = field(default_factory=trio.Event)
    final: Disagrees | StorageFull | None = None

    def tell(self) -> None:
        """Wake who waits for a change."""
        self.changed.set()
        self.changed = trio.Event()


class Gathering:
    """The transfer. `parts` are the stretches that `download.incoming` is made of, `faults` how each source that was asked in vain ended."""

    def __init__(self, download: Download, scores: Scores) -> None:
        self._download, self._incoming, self._scores = download, download.incoming, scores
        self.parts: list[Part] = []
        self.faults: dict[Source, Fault] = {}
        self._restarts = self._incoming.restarts

    async def run(self, waiting: deque[Source]) -> bool:
        """Ask the sources in turn, which are taken off `waiting`, until the file is complete; whether it is. What has come by then stays.

        Raises Disagrees when sources contradict each other, StorageFull. Cancellation leaves nothing of use in the file.
        """
        tries: Counter[Source] = Counter()
        if self._incoming.size and not self.parts:
            self.parts.append(Part(None, self._incoming.size, await self._incoming.so_far()))
        while waiting:
            leader = await self._leg(waiting)
            if leader is None:
                return False
            if self._incoming.restarts != self._restarts:
                self.parts.clear()
                self._restarts = self._incoming.restarts
            self.parts.append(Part(leader, self._incoming.size, await self._incoming.so_far()))
            fault = self.faults.get(leader)
            if fault is None:
                return True
            if isinstance(fault, RemoteProtocolError):
                await self.restart()
                continue
            tries[leader] += 1
            if tries[leader] < MOST_RESUMPTIONS:
                waiting.append(leader)
            else:
                self.faults[leader] = Unavailable(f"{leader.url.host}: broke off {MOST_RESUMPTIONS} times")
        return False

    async def restart(self) -> None:
        """Forget what has come."""
        self.parts.clear()
        await self._incoming.restart()

    async def _leg(self, waiting: deque[Source]) -> Source | None:
        """Until a source that sent something is done or broke off (see `faults`), or nobody sends."""
        leg = _Leg()
        async with trio.open_nursery() as nursery:
            while leg.leader is None and leg.final is None and (waiting or leg.running):
                patience = float("inf")
                if waiting and len(leg.running) < _AT_ONCE:
                    source = waiting.popleft()
                    leg.running[source] = trio.CancelScope()
                    nursery.start_soon(self._contend, source, leg, waiting)
                    patience = self._scores.patience(source.server)
                with trio.move_on_after(patience):
                    await leg.changed.wait()
        if leg.final is not None:
            raise leg.final
        return leg.leader

    async def _contend(self, source: Source, leg: _Leg, waiting: deque[Source]) -> None:
        """Ask one source, and follow it to its end if it is the first to send."""
        begin, size = trio.current_time(), self._incoming.size

        def first() -> bool:
            if leg.leader is not None:
                return False
            leg.leader = source
            for other, scope in leg.running.items():
                if other != source:
                    scope.cancel()
            self._scores.began(source.server, trio.current_time() - begin)
            leg.tell()
            return True

        self.faults.pop(source, None)
        with leg.running[source] as scope:
            try:
                await self._download.rest(source.url, first)
            except (Disagrees, StorageFull) as error:
                leg.final = error
            except (RemoteProtocolError, Unavailable) as error:
                self.faults[source] = error
        seconds = trio.current_time() - begin
        if scope.cancelled_caught:
            self._scores.overtaken(source.server, seconds)
            waiting.appendleft(source)
        elif leg.leader == source and source not in self.faults:
            self._scores.delivered(source.server, self._incoming.size - size, seconds)
        elif isinstance(fault := self.faults.get(source), Unavailable) and not isinstance(fault, NotThere):
            self._scores.failed(source.server)
        del leg.running[source]
        leg.tell()


def culprit(parts: list[Part], path: Path) -> Source | None:
    """Of whom the first wrong byte of a failed transfer was, by the blob itself at `path`; None if nothing was wrong. Blocking."""
    known = hashlib.sha256()
    with path.open("rb") as file:
        position = 0
        for part in parts:
            while position < part.end and (step := file.read(min(STEP, part.end - position))):
                known.update(step)
                position += len(step)
            if position != part.end or known.hexdigest() != part.digest:
                return part.source
    return None
