"""Whether a relay is still there: what it owes an answer to, when it last said anything, and whether the computer slept. No I/O.

Answered pings say that a socket is served, maybe by a proxy before a dead relay. Only an `EOSE` (or `CLOSED`) says that queries are.
"""

from __future__ import annotations

from typing import Final

from nostrain.units import UnixTime

JUMP_S: Final = 30
"""The two clocks may differ by this much between two looks; more is a computer that slept, or a wall clock that was set."""


class Vigil:
    """One connection's. `at` is the monotonic clock in seconds, which stands still while the computer sleeps; `wall` the wall clock."""

    def __init__(self, at: float, wall: UnixTime) -> None:
        self._owed: dict[str, float] = {}
        self._heard, self._looked = at, (at, wall)

    def asked(self, name: str, at: float) -> None:
        """A query was sent: an answer is owed."""
        self._owed[name] = at

    def heard(self, at: float, name: str | None = None) -> None:
        """A message came, perhaps a part of the answer to the query `name`: its time starts again."""
        self._heard = at
        if name in self._owed:
            self._owed[name] = at

    def answered(self, name: str) -> None:
        """The answer is complete, or not wanted any more."""
        self._owed.pop(name, None)

    def overdue(self, at: float, patience: float) -> bool:
        """Whether a query has brought nothing for `patience` seconds."""
        return any(at - since > patience for since in self._owed.values())

    def silent(self, at: float, interval: float) -> bool:
        """Whether nothing was heard for `interval` seconds, and nothing is owed."""
        return not self._owed and at - self._heard > interval

    def slept(self, at: float, wall: UnixTime) -> int:
        """Seconds that the wall clock ran ahead (or behind, negative) since the last look; 0 if within JUMP_S."""
        (then, wall_then), self._looked = self._looked, (at, wall)
        jump = round(wall - wall_then - (at - then))
        return jump if abs(jump) > JUMP_S else 0
