"""The compressor: top-k of every chunk, two magnitudes and a sign (SparseLoCo, arXiv:2508.15706, algorithm 1; design section 12).

A delta has exactly one encoding. Of a chunk, the k values of largest magnitude are kept, ties to the lower index; positions strictly
increase. The canonical form of the scales:

* a scale is m·2^e with 2^15 ≤ m < 2^16, or m < 2^15 at the smallest exponent only, or m = e = 0 for zero;
* two magnitudes: low < high and both are used; one magnitude: it is the low one and the high scale is zero;
* a value of magnitude zero has no sign, and stands at the lowest position that is free (a chunk with fewer than k values that matter).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec, TensorSpec
from nostrain.sparseloco.container import Parts, pack, unpack_untrusted
from nostrain.sparseloco.delta import EXPONENT_MAX, EXPONENT_MIN, MANTISSA_BITS, UNIT, Delta
from nostrain.sparseloco.layout import Layout, plan

_LLOYD_STEPS = 6
_MANTISSA_LOW = 1 << (MANTISSA_BITS - 1)
_LARGEST = ((1 << MANTISSA_BITS) - 1) * 2.0**EXPONENT_MAX

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def encode(tensors: Sequence[TensorSpec], codec: CodecSpec, values: NDArray[np.float32]) -> bytes:
    """Compress the flat vector `values` (float32) to a version-1 container. Magnitudes are clipped below 16; under 2^-36 they are zero.

    Raises:
        LocalProtocolError: `values` has the wrong length or is not finite, or the codec is not supported.
    """
    layout = plan(tensors, codec)
    if values.shape != (layout.size,) or values.dtype != np.float32:
        raise LocalProtocolError(f"encode: {values.dtype} {values.shape} is not the flat float32 vector of {layout.size} values")
    if not np.isfinite(values).all():
        raise LocalProtocolError("encode: the pseudo-gradient is not finite")
    indices = _top_k(np.abs(values), layout, codec)
    chunk = _chunk_of_value(layout)
    kept = values[indices].astype(np.float64)
    magnitudes = np.minimum(np.abs(kept), _LARGEST)
    magnitudes[magnitudes < UNIT] = 0.0
    low, high = _two_levels(magnitudes, chunk, layout)
    is_high = (high[chunk] > 0) & (magnitudes > (low + high)[chunk] / 2)
    low, high, is_high = _canonical_levels(low, high, is_high, magnitudes, chunk, layout)
    low_m, low_e = _split(low)
    high_m, high_e = _split(high)
    nonzero = np.where(is_high, high[chunk], low[chunk]) > 0
    codes = is_high.astype(np.int64) | ((kept < 0) & nonzero).astype(np.int64) << 1
    return pack(Parts(low_m, low_e, high_m, high_e, indices - layout.starts[chunk], codes), layout, codec)


def decode_untrusted(blob: bytes, tensors: Sequence[TensorSpec], codec: CodecSpec) -> Delta:
    """Read a delta that somebody else wrote; accepts the canonical encoding only, and allocates in proportion to the manifest's shapes.

    Raises:
        RemoteProtocolError: the blob is not the canonical encoding of a delta of this run.
        LocalProtocolError: the codec is not supported.
    """
    layout = plan(tensors, codec)
    parts = unpack_untrusted(blob, layout, codec)
    chunk = _chunk_of_value(layout)
    _check_positions(parts.positions, chunk, layout)
    low, high = _units(parts.low_m, parts.low_e), _units(parts.high_m, parts.high_e)
    is_high = (parts.codes & 1).astype(bool)
    negative = parts.codes >> 1 == 1
    _check_levels(low, high, is_high, layout)
    units = np.where(is_high, high[chunk], low[chunk])
    zero = units == 0
    rank = np.arange(layout.values) - layout.first[chunk]
    if (negative & zero).any():
        raise RemoteProtocolError("delta", "a value of magnitude zero has a sign")
    if (parts.positions[zero] != rank[zero]).any():
        raise RemoteProtocolError("delta", "a value of magnitude zero is not at the lowest free position")
    return Delta(parts.positions + layout.starts[chunk], np.where(negative, -units, units), layout.size)


def _chunk_of_value(layout: Layout) -> Ints:
    return np.repeat(np.arange(layout.chunks), layout.kept)


def _top_k(magnitudes: NDArray[np.float32], layout: Layout, codec: CodecSpec) -> Ints:
    """Flat indices, increasing, of the k largest of every chunk; ties go to the lower index."""
    magnitudes = np.where(magnitudes < UNIT, np.float32(0), magnitudes)
    out = np.empty(layout.values, np.int64)
    full = np.flatnonzero(layout.lengths == codec.chunk)
    if len(full):
        grid = magnitudes[layout.starts[full, None] + np.arange(codec.chunk)]
        picked = _top_k_rows(grid, codec.topk) + layout.starts[full, None]
        out[layout.first[full, None] + np.arange(codec.topk)] = picked
    for at in np.flatnonzero(layout.lengths != codec.chunk):
        start, k = layout.starts[at], layout.kept[at]
        row = magnitudes[None, start : start + layout.lengths[at]]
        out[layout.first[at] : layout.first[at] + k] = _top_k_rows(row, int(k))[0] + start
    return out


def _top_k_rows(grid: NDArray[np.float32], k: int) -> Ints:
    """[rows, n] → [rows, k] columns, increasing. The k-th largest value is the bar; values equal to it fill up from the left."""
    bar = np.partition(grid, grid.shape[1] - k, axis=1)[:, grid.shape[1] - k, None]
    above, level = grid > bar, grid == bar
    room = k - above.sum(axis=1, keepdims=True)
    keep = above | (level & (np.cumsum(level, axis=1) <= room))
    return np.nonzero(keep)[1].reshape(len(grid), k)


def _mean_where(values: Floats, mask: NDArray[np.bool_], chunk: Ints, layout: Layout) -> Floats:
    """Mean over the masked values of every chunk, 0 where there are none."""
    total = np.bincount(chunk, np.where(mask, values, 0.0), layout.chunks)
    return total / np.maximum(np.bincount(chunk, mask, layout.chunks), 1)


def _two_levels(magnitudes: Floats, chunk: Ints, layout: Layout) -> tuple[Floats, Floats]:
    """Lloyd's two-level quantizer of the magnitudes of every chunk; where some are zero, the low level is zero."""
    bar = _mean_where(magnitudes, magnitudes >= 0, chunk, layout)
    has_zero = np.bincount(chunk, magnitudes == 0, layout.chunks) > 0
    low = high = bar
    for _ in range(_LLOYD_STEPS):
        upper = magnitudes > bar[chunk]
        low, high = _mean_where(magnitudes, ~upper, chunk, layout), _mean_where(magnitudes, upper, chunk, layout)
        bar = (low + high) / 2
    low = np.where(has_zero, 0.0, low)
    high = np.where(has_zero, _mean_where(magnitudes, magnitudes > 0, chunk, layout), high)
    return _round(low), _round(high)


def _canonical_levels(
    low: Floats, high: Floats, is_high: NDArray[np.bool_], magnitudes: Floats, chunk: Ints, layout: Layout
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Where rounding left one level without use or both equal, keep one: the mean of the chunk, as the low level."""
    is_high = np.where((low == 0)[chunk], magnitudes > 0, is_high)
    uses_high = np.bincount(chunk, is_high, layout.chunks)
    single = (uses_high == 0) | (uses_high == layout.kept) | (low >= high)
    mean = _round(_mean_where(magnitudes, magnitudes >= 0, chunk, layout))
    return np.where(single, mean, low), np.where(single, 0.0, high), is_high & ~single[chunk]


def _exponent(magnitude: Floats) -> Ints:
    """The exponent e of the canonical m·2^e: 16 significant bits, fewer only at the smallest exponent."""
    return np.maximum(np.frexp(magnitude)[1].astype(np.int64) - MANTISSA_BITS, EXPONENT_MIN)


def _round(magnitude: Floats) -> Floats:
    """Nearest scale that can be written."""
    exponent = _exponent(magnitude)
    return np.minimum(np.ldexp(np.rint(np.ldexp(magnitude, -exponent)), exponent), _LARGEST)


def _split(magnitude: Floats) -> tuple[Ints, Ints]:
    exponent = np.where(magnitude > 0, _exponent(magnitude), 0)
    return np.ldexp(magnitude, -exponent).astype(np.int64), exponent


def _units(mantissa: Ints, exponent: Ints) -> Ints:
    """Scales as integers in units of 2^-36; refuses every spelling but the canonical one."""
    zero = (mantissa == 0) & (exponent == 0)
    in_range = (exponent >= EXPONENT_MIN) & (exponent <= EXPONENT_MAX)
    normal = (mantissa >= _MANTISSA_LOW) | ((exponent == EXPONENT_MIN) & (mantissa > 0))
    if not (zero | (in_range & normal)).all():
        raise RemoteProtocolError("delta", "a scale is out of range or not in canonical form")
    return mantissa << np.where(zero, 0, exponent - EXPONENT_MIN)


def _check_positions(positions: Ints, chunk: Ints, layout: Layout) -> None:
    if (positions >= layout.lengths[chunk]).any():
        raise RemoteProtocolError("delta", "a position lies outside of its chunk")
    if ((np.diff(positions) <= 0) & (np.diff(chunk) == 0)).any():
        raise RemoteProtocolError("delta", "positions in a chunk do not strictly increase")


def _check_levels(low: Ints, high: Ints, is_high: NDArray[np.bool_], layout: Layout) -> None:
    uses_high = np.add.reduceat(is_high.astype(np.int64), layout.first)
    one = (high == 0) & (uses_high == 0)
    two = (high > low) & (uses_high > 0) & (uses_high < layout.kept)
    if not (one | two).all():
        raise RemoteProtocolError("delta", "the two magnitudes of a chunk are not in canonical form")
