"""BIP-340 tagged hashes: the one way this project hashes structured data.

At the bottom of the tree because the protocol's nouns, the pure machines, the codec and the cryptography all name things by them.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache


@lru_cache(maxsize=64)
def _tag_state(tag: str) -> hashlib._Hash:
    digest = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(digest + digest)


def tagged_hash(tag: str, *parts: bytes) -> bytes:
    """SHA256(SHA256(tag) ‖ SHA256(tag) ‖ parts…) as BIP-340 defines it; 32 bytes.

    Parts are concatenated without separators: the caller fixes their lengths.
    """
    state = _tag_state(tag).copy()
    for part in parts:
        state.update(part)
    return state.digest()


def sha256_hex(data: bytes) -> str:
    """SHA-256 of `data` in lowercase hex, as Blossom names blobs."""
    return hashlib.sha256(data).hexdigest()
