"""Exponential backoff with jitter, so that a relay that comes back is not met by everyone at once."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from `first` to `last` seconds; each is drawn from the upper half of its step, by the injected generator."""

    def __init__(self, rng: random.Random, first: float, last: float) -> None:
        self._rng, self._first, self._last = rng, first, last
        self._step = first

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        step, self._step = self._step, min(2 * self._step, self._last)
        return self._rng.uniform(step / 2, step)

    def lasted(self, seconds: float) -> None:
        """An attempt went well for `seconds`: start over, unless it failed sooner than we would wait anyway."""
        if seconds > self._step:
            self._step = self._first
