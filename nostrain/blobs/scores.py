"""What each server did for us so far: how soon it begins to send, how fast it is, how often it failed, whether it lied. That decides who is
asked first, when another one is asked beside it, and who waits on the bench. Kept in memory, for a bounded number of servers.

A server is the base URL that a blob's name is appended to. Only what a Blossom server answers for is held against it: bytes under
`<server>/<digest>` that are not that blob. A blob that is not there, or is larger than somebody said, is no fault, or strangers could have
honest servers benched by naming URLs.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Final

import trio

from nostrain.blobs.tuning import Tuning
from nostrain.blobs.urls import Source

_log = logging.getLogger("nostrain.blobs")

REMEMBERED: Final = 256
"""Servers; the one that was met longest ago is forgotten first."""
_BEGINNINGS: Final = 16
_RATES: Final = 8
_ENOUGH: Final = 4
"""Beginnings from which on a server is measured by itself."""
_MANY_MADS: Final = 4.0
_SHORTEST_S: Final = 0.05
_WORTH_TIMING: Final = 1 << 20
"""Bytes from which on a transfer says something about a server's rate."""
_FAULTS: Final = 3
"""In a row, and a server is benched."""
_BENCH_S: Final = 30.0
_LONGEST_BENCH_S: Final = 1800.0
_LIAR_S: Final = 600.0
_LONGEST_LIAR_S: Final = 86_400.0


@dataclass(slots=True)
class _Score:
    beginnings: deque[float] = field(default_factory=lambda: deque(maxlen=_BEGINNINGS))
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=_RATES))
    faults: int = 0
    lies: int = 0
    benched_until: float = 0.0


class Scores:
    """The table. Seconds are those of `now`, trio's clock."""

    def __init__(self, tuning: Tuning, now: Callable[[], float] = trio.current_time) -> None:
        self._tuning, self._now = tuning, now
        self._of: OrderedDict[str, _Score] = OrderedDict()

    def order(self, sources: Iterable[Source], size: int) -> list[Source]:
        """Whom to ask first for `size` bytes: the benched last, those that failed of late late, then by the time that it should take."""

        def rank(source: Source) -> tuple[bool, int, float]:
            score = self._look(source.server)
            return self.benched(source.server), score.faults, self._expected(score, size)

        return sorted(sources, key=rank)

    def benched(self, server: str | None) -> bool:
        """Whether the server is asked only when nobody else is left."""
        return self._look(server).benched_until > self._now()

    def patience(self, server: str | None) -> float:
        """Seconds to its first byte after which another one is asked too: later than it used to be, by the median and the median deviation."""
        seen = self._look(server).beginnings
        if len(seen) < _ENOUGH:
            return self._tuning.hedge
        middle = median(seen)
        deviation = median(abs(one - middle) for one in seen)
        return min(max(middle + _MANY_MADS * deviation, _SHORTEST_S), self._tuning.silence)

    def began(self, server: str | None, seconds: float) -> None:
        """Its first byte came after so long."""
        if server is not None:
            self._meet(server).beginnings.append(seconds)

    def overtaken(self, server: str | None, seconds: float) -> None:
        """Another one began to send while this one had not for so long: it is at least that slow."""
        if seconds >= self.patience(server):
            self.began(server, seconds)

    def delivered(self, server: str | None, size: int, seconds: float) -> None:
        """It served a blob to the end: the last `size` bytes in so long."""
        if server is None:
            return
        score = self._meet(server)
        score.faults = 0
        if score.lies == 0:
            score.benched_until = 0.0
        if size >= _WORTH_TIMING and seconds > 0:
            score.rates.append(size / seconds)

    def failed(self, server: str | None) -> None:
        """It did not answer, or broke off: after a few times in a row it is benched, ever longer."""
        if server is None:
            return
        score = self._meet(server)
        score.faults += 1
        if score.faults >= _FAULTS:
            self._bench(score, min(_BENCH_S * 2.0 ** min(score.faults - _FAULTS, 16), _LONGEST_BENCH_S))

    def lied(self, server: str | None) -> None:
        """It served something else under the blob's name: what was known of it counts no more."""
        if server is None:
            return
        score = self._meet(server)
        score.lies += 1
        score.beginnings.clear()
        score.rates.clear()
        seconds = min(_LIAR_S * 2.0 ** min(score.lies - 1, 16), _LONGEST_LIAR_S)
        self._bench(score, seconds)
        _log.warning("%s serves other bytes under a blob's name: asked last for %.0f s", server, seconds)

    def _bench(self, score: _Score, seconds: float) -> None:
        score.benched_until = max(score.benched_until, self._now() + seconds)

    def _expected(self, score: _Score, size: int) -> float:
        begin = median(score.beginnings) if score.beginnings else self._tuning.hedge
        return begin + (size / median(score.rates) if score.rates else 0.0)

    def _look(self, server: str | None) -> _Score:
        return self._of.get(server or "", _Score())

    def _meet(self, server: str) -> _Score:
        score = self._of.setdefault(server, _Score())
        self._of.move_to_end(server)
        if len(self._of) > REMEMBERED:
            self._of.popitem(last=False)
        return score
