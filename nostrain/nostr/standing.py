"""How a relay behaved: points for what only a faulty or lying relay does, draining with time, and the bench. No I/O, seconds of one clock.

Only misdeeds of the relay itself count: a forged signature, an event that was not asked for, frames that are no messages. An event that is
signed and merely unreadable is its author's doing; if it counted, a stranger could have every honest relay benched by publishing some.
"""

from __future__ import annotations

from typing import Final

FORGED: Final = 10
UNWANTED: Final = 5
GARBLED: Final = 5
"""Points for a forged event, for one that does not match the filter, for a message that cannot be read."""

LIMIT: Final = 1_000
"""Points at which a relay is benched: a hundred forged events at once; one point drains a second."""

FIRST_BENCH_S: Final = 600.0
LAST_BENCH_S: Final = 6 * 3600.0


class Standing:
    """One relay's."""

    def __init__(self) -> None:
        self._points, self._at = 0.0, 0.0
        self._bench_s, self._benched_until = FIRST_BENCH_S, 0.0

    def points(self, at: float) -> float:
        """What is held against the relay now."""
        return max(0.0, self._points - (at - self._at))

    def blame(self, points: int, at: float) -> bool:
        """Add `points`; whether the relay has earned the bench."""
        self._points, self._at = self.points(at) + points, at
        return self._points >= LIMIT

    def bench(self, at: float) -> float:
        """Begin a bench, twice as long as the last; its length. The slate is clean afterwards."""
        length, self._bench_s = self._bench_s, min(2 * self._bench_s, LAST_BENCH_S)
        self._benched_until, self._points = at + length, 0.0
        return length

    def benched_s(self, at: float) -> float:
        """Seconds left on the bench, 0 or more."""
        return max(0.0, self._benched_until - at)
