"""Hash chains over SHA-256: a validator publishes the end and later reveals one earlier link a round (design section 2, decision 5)."""

from __future__ import annotations

from hashlib import sha256


def advance(link: bytes, steps: int) -> bytes:
    """SHA-256 applied `steps` times to a 32-byte link. Raises ValueError on a negative count or another length."""
    if steps < 0 or len(link) != 32:
        raise ValueError("a chain link is 32 bytes and is advanced by 0 or more steps")
    for _ in range(steps):
        link = sha256(link).digest()
    return link


def chain_link(seed: bytes, length: int, index: int) -> bytes:
    """b with H^index(b) = H^length(seed): index 0 is the published end, `length` the seed itself. Raises ValueError outside 0..length."""
    if not 0 <= index <= length:
        raise ValueError(f"link {index} of a chain of {length}")
    return advance(seed, length - index)
