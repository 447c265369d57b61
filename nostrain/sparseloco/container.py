"""Version 1 of the delta container: bytes ⇄ header, scales, positions, codes. Everything little-endian, nothing compressed, no names.

====================  ====================================================================================================
header, 18 bytes      magic ``NSDL``, version u8 = 1, bits u8 = 2, chunk u16, topk u16, chunks u32, values u32
scales, 6 a chunk     low: mantissa u16, exponent i8; high: mantissa u16, exponent i8
positions, 12 bits    position of each kept value inside its chunk, two in three bytes, low bits first
codes, 2 bits         of each kept value, four in a byte, low bits first: bit 0 picks the high magnitude, bit 1 is the sign
====================  ====================================================================================================

The length follows from the manifest alone, so a blob of another length is refused before anything is allocated.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec
from nostrain.sparseloco.layout import Layout

MAGIC: Final = b"NSDL"
_HEADER: Final = struct.Struct("<4sBBHHII")
_SCALE: Final = np.dtype([("low_m", "<u2"), ("low_e", "i1"), ("high_m", "<u2"), ("high_e", "i1")])


@dataclass(frozen=True, slots=True)
class Parts:
    """The sections as arrays. Scales: int64 [chunks]; `positions`, `codes`: int64 [values]."""

    low_m: NDArray[np.int64]
    low_e: NDArray[np.int64]
    high_m: NDArray[np.int64]
    high_e: NDArray[np.int64]
    positions: NDArray[np.int64]
    codes: NDArray[np.int64]


def encoded_size(layout: Layout) -> int:
    """The length in bytes of every delta of this layout."""
    return _HEADER.size + layout.chunks * _SCALE.itemsize + -(-layout.values * 12 // 8) + -(-layout.values * 2 // 8)


def pack(parts: Parts, layout: Layout, codec: CodecSpec) -> bytes:
    """Write `parts`; the caller has made them canonical."""
    scales = np.empty(layout.chunks, _SCALE)
    for field in ("low_m", "low_e", "high_m", "high_e"):
        scales[field] = getattr(parts, field)
    return b"".join((_header(layout, codec), scales.tobytes(), _pack12(parts.positions), _pack2(parts.codes)))


def unpack_untrusted(blob: bytes, layout: Layout, codec: CodecSpec) -> Parts:
    """Read the sections of `blob`; their meaning is checked by the codec.

    Raises:
        RemoteProtocolError: wrong length, wrong header, or padding bits that are set.
    """
    expected = encoded_size(layout)
    if len(blob) != expected:
        raise RemoteProtocolError("delta", f"{len(blob)} bytes, but this run's deltas have exactly {expected}")
    if blob[: _HEADER.size] != _header(layout, codec):
        raise RemoteProtocolError("delta", "the header is not the one that this run's manifest fixes")
    body = memoryview(blob)[_HEADER.size :]
    scale_bytes = layout.chunks * _SCALE.itemsize
    position_bytes = -(-layout.values * 12 // 8)
    scales = np.frombuffer(body[:scale_bytes], _SCALE)
    low_m, low_e, high_m, high_e = (scales[field].astype(np.int64) for field in ("low_m", "low_e", "high_m", "high_e"))
    positions = _unpack12(body[scale_bytes : scale_bytes + position_bytes], layout.values)
    codes = _unpack2(body[scale_bytes + position_bytes :], layout.values)
    return Parts(low_m, low_e, high_m, high_e, positions, codes)


def _header(layout: Layout, codec: CodecSpec) -> bytes:
    return _HEADER.pack(MAGIC, codec.version, codec.quantizer_bits, codec.chunk, codec.topk, layout.chunks, layout.values)


def _pack12(positions: NDArray[np.int64]) -> bytes:
    pairs = np.zeros(len(positions) + len(positions) % 2, np.uint16)
    pairs[: len(positions)] = positions
    first, second = pairs[0::2], pairs[1::2]
    out = np.empty((len(first), 3), np.uint8)
    out[:, 0] = first & 0xFF
    out[:, 1] = (first >> 8) | (second & 0xF) << 4
    out[:, 2] = second >> 4
    return out.tobytes()[: -(-len(positions) * 12 // 8)]


def _unpack12(section: memoryview, count: int) -> NDArray[np.int64]:
    triples = np.zeros((-(-count // 2), 3), np.uint16)
    triples.reshape(-1)[: len(section)] = np.frombuffer(section, np.uint8)
    pairs = np.empty((len(triples), 2), np.int64)
    pairs[:, 0] = triples[:, 0] | (triples[:, 1] & 0xF) << 8
    pairs[:, 1] = triples[:, 1] >> 4 | triples[:, 2] << 4
    flat = pairs.reshape(-1)
    if flat[count:].any():
        raise RemoteProtocolError("delta", "padding after the positions is not zero")
    return flat[:count]


def _pack2(codes: NDArray[np.int64]) -> bytes:
    quads = np.zeros((-(-len(codes) // 4), 4), np.uint8)
    quads.reshape(-1)[: len(codes)] = codes
    return (quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6).tobytes()


def _unpack2(section: memoryview, count: int) -> NDArray[np.int64]:
    packed = np.frombuffer(section, np.uint8)
    flat = np.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)], axis=1).reshape(-1).astype(np.int64)
    if flat[count:].any():
        raise RemoteProtocolError("delta", "padding after the codes is not zero")
    return flat[:count]
