"""The units of the protocol, as distinct types: money and agreement are integers (design section 2, decision 8).

Digests, event ids and public keys travel as lowercase 64-character hex strings, exactly as NIP-01 and Blossom write them;
`crypto/` works on the raw 32 bytes and converts at its own edge.
"""

from __future__ import annotations

import re
from typing import Final, NewType

Msat = NewType("Msat", int)
"""An amount in millisatoshi (BOLT 11)."""

Ppm = NewType("Ppm", int)
"""A ratio in parts per million; scores, thresholds and learning-rate factors."""

UnixTime = NewType("UnixTime", int)
"""Seconds since the epoch, as `created_at` in NIP-01."""

BlockHeight = NewType("BlockHeight", int)
"""Height of the best chain as the Lightning node reports it."""

Digest = NewType("Digest", str)
"""A SHA-256, lowercase hex."""

EventId = NewType("EventId", str)
"""A NIP-01 event id, lowercase hex."""

Pubkey = NewType("Pubkey", str)
"""A BIP-340 x-only public key, lowercase hex."""

PPM: Final = 1_000_000

_HEX32: Final = re.compile(r"[0-9a-f]{64}")


def is_hex32(text: str) -> bool:
    """Whether `text` is 32 bytes in lowercase hex: the only spelling that NIP-01 allows."""
    return _HEX32.fullmatch(text) is not None
