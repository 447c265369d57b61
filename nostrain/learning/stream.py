"""Numbers drawn from a seed, the same on every machine: SHA-256 in counter mode. No library's generator is part of the protocol."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator


def numbers(seed: str) -> Iterator[int]:
    """Endless unsigned 64-bit integers: the big-endian words of SHA256(seed ‖ counter as u64), counter = 0, 1, 2, …; `seed` is hex."""
    prefix = bytes.fromhex(seed)
    counter = 0
    while True:
        block = hashlib.sha256(prefix + counter.to_bytes(8, "big")).digest()
        for at in range(0, 32, 8):
            yield int.from_bytes(block[at : at + 8], "big")
        counter += 1


def choose(seed: str, population: int, count: int) -> list[int]:
    """`count` different numbers below `population`, in drawing order (all of them if there are fewer): a partial Fisher-Yates shuffle."""
    draw = numbers(seed)
    pool = list(range(population))
    for at in range(min(count, population)):
        other = at + next(draw) % (population - at)
        pool[at], pool[other] = pool[other], pool[at]
    return pool[:count]
