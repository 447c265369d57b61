"""Time as the daemon sees it."""

from __future__ import annotations

from typing import Protocol

from nostrain.units import UnixTime


class Clock(Protocol):
    """Wall-clock time in whole seconds, and waiting for it. Simulations give a virtual one."""

    def now(self) -> UnixTime:
        """The current unix time."""
        ...

    async def sleep_until(self, when: UnixTime) -> None:
        """Return once `now() >= when`; a checkpoint, cancellable at any time."""
        ...
