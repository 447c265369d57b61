"""Randomness as the daemon sees it."""

from __future__ import annotations

from typing import Protocol


class Entropy(Protocol):
    """Unpredictable bytes: the operating system's when live, a seeded stream in simulations."""

    def draw(self, size: int) -> bytes:
        """`size` fresh bytes, fit for secrets when live."""
        ...
