"""The live clock and the live entropy."""

from __future__ import annotations

import os
import time

import trio

from nostrain.units import UnixTime

POLL_S = 5.0
"""Longest sleep at once: a jump of the wall clock (suspend, NTP) is noticed within it."""


class SystemClock:
    """Wall-clock time of the operating system."""

    def now(self) -> UnixTime:
        """Whole seconds since the epoch."""
        return UnixTime(int(time.time()))

    async def sleep_until(self, when: UnixTime) -> None:
        """Return once `now() >= when`."""
        await trio.lowlevel.checkpoint()
        while (left := when - time.time()) > 0:  # noqa: ASYNC110 - no event tells of the wall clock
            await trio.sleep(min(left, POLL_S))


class OsEntropy:
    """The operating system's generator."""

    def draw(self, size: int) -> bytes:
        """`size` bytes fit for secrets."""
        return os.urandom(size)
