"""`ports.clock.Clock` on trio's clock: under a `MockClock`, simulated days pass in milliseconds."""

from __future__ import annotations

from typing import Final

import trio

from nostrain.units import UnixTime

EPOCH: Final = UnixTime(1_750_000_000)
"""When simulations begin unless told otherwise."""


class VirtualClock:
    """Starts at `start` when it is made (inside `trio.run`) and moves with `trio.current_time()`; `skew_s` makes it wrong by that much."""

    def __init__(self, start: UnixTime = EPOCH, skew_s: float = 0) -> None:
        self._offset = start + skew_s - trio.current_time()

    def now(self) -> UnixTime:
        """The current unix time, as this participant believes it."""
        return UnixTime(int(trio.current_time() + self._offset))

    async def sleep_until(self, when: UnixTime) -> None:
        """Return once `now() >= when`."""
        # One checkpoint at least; and a sleep may end a rounding error early.
        await trio.lowlevel.checkpoint()
        while self.now() < when:
            await trio.sleep_until(when - self._offset)
            if self.now() < when:
                await trio.sleep(0.001)
