"""`ports.entropy.Entropy` from a seed: the secrets of a simulation, the same in every run of it."""

from __future__ import annotations

from nostrain.hashes import tagged_hash


class SeededEntropy:
    """A stream of bytes that `seed` and `label` fix. Two labels (say, two participants) give unrelated streams."""

    def __init__(self, seed: int, label: str = "") -> None:
        self._key = tagged_hash("nostrain/testing/entropy", seed.to_bytes(16, "big", signed=True), label.encode())
        self._blocks = 0

    def draw(self, size: int) -> bytes:
        """The next `size` bytes; every draw starts a new block."""
        drawn = b""
        while len(drawn) < size:
            drawn += tagged_hash("nostrain/testing/entropy/block", self._key, self._blocks.to_bytes(8, "big"))
            self._blocks += 1
        return drawn[:size]
