"""The compressor: a flat vector ⇄ the bytes of a delta (SparseLoCo, arXiv:2508.15706, algorithm 1; docs/protocol.md, section 8).

Top-k of every chunk, one or two magnitudes and a sign, and an entropy coder. A delta has exactly one encoding, and a decoder refuses
everything else. With numba installed, models of COMPILED_FROM values and more are done by `kernels` (smaller ones from `compiled.adopt` on), with
equal results.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec, TensorSpec
from nostrain.sparseloco.coder import decode_stream_untrusted, encode_stream
from nostrain.sparseloco.compiled import by_numpy, kernels_for
from nostrain.sparseloco.container import HIGH, NEGATIVE, POSITION, Parts, high_counts, join, share_of, split_untrusted
from nostrain.sparseloco.delta import Delta, empty_indices
from nostrain.sparseloco.layout import Layout, plan
from nostrain.sparseloco.minifloat import LEVEL_UNITS, LEVELS
from nostrain.sparseloco.select import quantize, top_k


def encode(tensors: Sequence[TensorSpec], codec: CodecSpec, values: NDArray[np.float32], *, compiled: bool | None = None) -> bytes:
    """The bytes that `compress` makes of `values`.

    Raises:
        LocalProtocolError: as `compress`.
    """
    return compress(tensors, codec, values, compiled=compiled)[0]


def compress(
    tensors: Sequence[TensorSpec], codec: CodecSpec, values: NDArray[np.float32], *, compiled: bool | None = None
) -> tuple[bytes, Delta]:
    """Compress the flat vector `values` (float32): the bytes, and the delta that they decode to.

    Magnitudes are limited to below 16; under 2^-36 they are zero. `compiled` chooses the implementation: True numba, False numpy, None by size.

    Raises:
        LocalProtocolError: `values` has the wrong length or is not finite, the codec is not supported, or numba was asked for and is missing.
    """
    layout = plan(tensors, codec)
    if values.shape != (layout.size,) or values.dtype != np.float32:
        raise LocalProtocolError(f"encode: {values.dtype} {values.shape} is not the flat float32 vector of {layout.size} values")
    kernels = kernels_for(layout.size, compiled)
    if kernels is None:
        with by_numpy():
            positions = top_k(values, layout)
            parts = quantize(values[layout.flat_indices(positions)], positions, layout, codec.quantizer_bits)
            return join(encode_stream(parts, layout, codec)), _delta_of(parts, layout, None)
    kept, positions = kernels.top_k(values, layout)
    parts = quantize(kept, positions, layout, codec.quantizer_bits, kernels.lloyd)
    return join(kernels.encode_stream(parts, layout, codec)), _delta_of(parts, layout, kernels)


def decode_untrusted(blob: bytes, tensors: Sequence[TensorSpec], codec: CodecSpec, *, compiled: bool | None = None) -> Delta:
    """Read a delta that somebody else wrote; accepts the canonical encoding only. Time and memory follow from the manifest's shapes.

    `compiled` as in `encode`.

    Raises:
        RemoteProtocolError: the blob is not the canonical encoding of a delta of this run.
        LocalProtocolError: the codec is not supported, or numba was asked for and is missing.
    """
    layout = plan(tensors, codec)
    parts, _ = read_parts_untrusted(blob, layout, codec, compiled)
    return _delta_of(parts, layout, kernels_for(layout.size, compiled))


def read_parts_untrusted(
    blob: bytes, layout: Layout, codec: CodecSpec, compiled: bool | None, places: NDArray[np.uint16] | None = None
) -> tuple[Parts, NDArray[np.int64]]:
    """What a delta says, in the order of its chunks, and how many values of each have the high magnitude.

    The places are written to `places`, if there is one. `compiled` as in `encode`.

    Raises:
        RemoteProtocolError, LocalProtocolError: as `decode_untrusted`.
    """
    stream = split_untrusted(blob, layout, codec)
    kernels = kernels_for(layout.size, compiled)
    if kernels is None:
        with by_numpy():
            parts = decode_stream_untrusted(stream, layout, codec, places)
            counts = high_counts(parts, layout)
    else:
        parts = kernels.decode_stream_untrusted(stream, layout, codec, places)
        counts = kernels.high_counts(parts, layout)
    _check_levels(parts, counts, layout, stream.share)
    return parts, counts


def _check_levels(parts: Parts, uses_high: NDArray[np.int64], layout: Layout, share: int) -> None:
    """The levels exist; two magnitudes are both used, and as often as the header says; a chunk of zeros stands at the front and has no signs."""
    levels, steps = parts.levels, parts.steps
    if ((levels < 0) | (levels + steps >= LEVELS) | ((levels == 0) & (steps > 0))).any():
        raise RemoteProtocolError("delta", "a magnitude is out of range")
    if ((steps > 0) & ((uses_high == 0) | (uses_high == layout.kept))).any():
        raise RemoteProtocolError("delta", "a chunk has two magnitudes and uses one")
    if share != share_of(steps, uses_high, layout):
        raise RemoteProtocolError("delta", "the header states another share of high magnitudes")
    for at in np.flatnonzero(levels == 0):
        mine = parts.places[layout.first[at] : layout.first[at] + layout.kept[at]]
        if mine[-1] != layout.kept[at] - 1 or (mine & NEGATIVE).any():
            raise RemoteProtocolError("delta", "a chunk of zeros has signs, or does not stand at the front")


def _delta_of(parts: Parts, layout: Layout, kernels: ModuleType | None) -> Delta:
    return delta_of(parts.places, LEVEL_UNITS[parts.levels], LEVEL_UNITS[parts.levels + parts.steps], layout, kernels)


def delta_of(
    places: NDArray[np.uint16], low: NDArray[np.int64], high: NDArray[np.int64], layout: Layout, kernels: ModuleType | None
) -> Delta:
    """The delta of what a container says: places as `Parts`, and the magnitudes of every chunk in units."""
    if kernels is not None:
        delta: Delta = kernels.delta_of(places, low, high, layout)
        return delta
    units = np.where(places & HIGH, np.repeat(high, layout.kept), np.repeat(low, layout.kept))
    units = np.where(places & NEGATIVE, -units, units)
    indices = layout.flat_indices((places & POSITION).astype(np.int32))
    order, increasing = np.argsort(indices), empty_indices(layout.values, layout.size)
    increasing[:] = indices[order]
    return Delta(increasing, units[order], layout.size)
