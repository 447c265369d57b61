"""Version 2 of the delta container: bytes ⇄ levels, positions, codes, by interleaved rANS (docs/protocol.md, section 8).

====================  ====================================================================================================
header, 6 bytes       magic ``NSDL``, version u8 = 2, share u8: how many of 256 values in chunks of two magnitudes have the high one
states, 8 a lane      u64 each, 2^31 ≤ state < 2^63
words, 4 each         u32; the rest of the file
====================  ====================================================================================================

Everything is little-endian. Of W = ceil(chunks / 16) *lanes*, each with a coder state of its own, lane l has the chunks l, l + W, l + 2W, …
The lanes take turns, symbol by symbol, and share the words. Their independence is what numpy vectorizes and a processor overlaps. Method: J. Duda, arXiv:1311.2540 (rANS);
F. Giesen, arXiv:1402.3392 (interleaving). A decoder must end with every state at 2^31 and every word used: so one delta has one encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec
from nostrain.sparseloco.layout import VERSION, Layout

MAGIC: Final = b"NSDL"
LANE_CHUNKS: Final = 16
"""Chunks a lane: enough that 4 wasted bytes of a state do not matter, few enough that numpy has many lanes to work on at once."""

LOWEST: Final = 1 << 31
"""States are in [2^31, 2^63): below it, a state takes a word; a symbol uses at most 31 bits."""

SHARE_BITS: Final = 8
WORD_BITS: Final = 32
STATE_BITS: Final = 63
POSITION_BITS: Final = 12
POSITION: Final = (1 << POSITION_BITS) - 1
HIGH: Final = 1 << POSITION_BITS
NEGATIVE: Final = 2 << POSITION_BITS
_HEADER_BYTES: Final = 6
_MOST_BITS: Final = 31


@dataclass(frozen=True, slots=True)
class Parts:
    """What a container says. `levels` (the low magnitude), `steps` (from it to the high one; 0: there is one): int64 [chunks];
    `places`: uint16 [values], the position inside the chunk (12 bits), then HIGH for the high magnitude and NEGATIVE."""

    levels: NDArray[np.int64]
    steps: NDArray[np.int64]
    places: NDArray[np.uint16]

    def positions(self) -> NDArray[np.int32]:
        """Positions inside the chunks, int32 [values]."""
        return (self.places & POSITION).astype(np.int32)

    def codes(self) -> NDArray[np.uint8]:
        """Bit 0 high magnitude, bit 1 negative: uint8 [values]."""
        return (self.places >> POSITION_BITS).astype(np.uint8)


def places_of(positions: NDArray[np.int32], codes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """`Parts.places` of positions and codes."""
    return positions.astype(np.uint16) | codes.astype(np.uint16) << np.uint16(POSITION_BITS)


@dataclass(frozen=True, slots=True)
class Stream:
    """A container taken apart: states int64 [lanes], words uint32, the share of high magnitudes."""

    states: NDArray[np.int64]
    words: NDArray[np.uint32]
    share: int


def lanes_of(layout: Layout) -> int:
    """How many lanes a delta of this layout has."""
    return -(-layout.chunks // LANE_CHUNKS)


def largest_size(layout: Layout) -> int:
    """No delta of this layout has more bytes: a symbol uses at most 31 bits, and there are two of every chunk and one of every value."""
    return (
        _HEADER_BYTES + 8 * lanes_of(layout) + 4 * -(-_MOST_BITS * (2 * layout.chunks + layout.values) // WORD_BITS) + 4 * lanes_of(layout)
    )


def high_counts(parts: Parts, layout: Layout) -> NDArray[np.int64]:
    """How many values of every chunk have the high magnitude."""
    return np.add.reduceat((parts.places & HIGH) >> POSITION_BITS, layout.first, dtype=np.int64)


def share_of(steps: NDArray[np.int64], high_counts: NDArray[np.int64], layout: Layout) -> int:
    """The share that the header must state: to the nearest 1/256, at least one and at most 255; 0 if no chunk has two magnitudes."""
    values, high = int(layout.kept[steps > 0].sum()), int(high_counts.sum())
    return min(max((512 * high + values) // (2 * values), 1), 255) if values else 0


def join(stream: Stream) -> bytes:
    """The bytes of the container."""
    header = MAGIC + bytes((VERSION, stream.share))
    return header + stream.states.astype("<u8").tobytes() + stream.words.astype("<u4").tobytes()


def split_untrusted(blob: bytes, layout: Layout, codec: CodecSpec) -> Stream:
    """Take a container apart.

    Raises:
        RemoteProtocolError: wrong header or length, a state out of range.
    """
    body = len(blob) - _HEADER_BYTES - 8 * lanes_of(layout)
    if body < 0 or body % 4 or len(blob) > largest_size(layout):
        raise RemoteProtocolError("delta", f"{len(blob)} bytes cannot be a delta of this run")
    if blob[:5] != MAGIC + bytes((VERSION,)) or (codec.quantizer_bits == 1 and blob[5]):
        raise RemoteProtocolError("delta", "the header is not one of this run")
    states = np.frombuffer(blob, "<u8", lanes_of(layout), _HEADER_BYTES)
    if ((states < LOWEST) | (states >= 1 << STATE_BITS)).any():
        raise RemoteProtocolError("delta", "a state is out of range")
    words = np.frombuffer(blob, "<u4", offset=_HEADER_BYTES + 8 * lanes_of(layout))
    return Stream(states.astype(np.int64), words.astype(np.uint32, copy=False), blob[5])
