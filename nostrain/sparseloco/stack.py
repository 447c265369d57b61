"""The deltas of a round side by side, as their containers have them, and the outer step over them (design section 12, "Exact aggregation").

Two bytes a value, in the order of the chunks, are all that a step needs: indices and units are worked out tile by tile, while a tile's sums lie in a
processor's cache. `aggregate` takes a `Stack` or deltas; the results are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrain.protocol.manifest import CodecSpec, TensorSpec
from nostrain.sparseloco.codec import delta_of, read_parts_untrusted
from nostrain.sparseloco.compiled import kernels_for
from nostrain.sparseloco.container import POSITION, POSITION_BITS
from nostrain.sparseloco.delta import Delta
from nostrain.sparseloco.layout import Layout, Span, plan
from nostrain.sparseloco.minifloat import LEVEL_UNITS, LEVELS
from nostrain.sparseloco.rules import Part

Ints = NDArray[np.int64]

_KINDS: Final = 4
"""Low, high, and the negatives of both: what bits 12 and 13 of a place say."""


class Stack:
    """Room for `count` deltas of one run; each is read by `read_untrusted` once, in any order and from any thread.

    `compiled` as in `codec.encode`. Memory: two bytes for each kept value and 16 for each chunk.

    Raises:
        LocalProtocolError: the codec is not supported, or numba was asked for and is missing.
    """

    def __init__(self, tensors: Sequence[TensorSpec], codec: CodecSpec, count: int, *, compiled: bool | None = None) -> None:
        self.layout, self._codec, self._compiled = plan(tensors, codec), codec, compiled
        self.kernels = kernels_for(self.layout.size, compiled)
        self.places = np.empty((count, self.layout.values), np.uint16)
        self.magnitudes = np.empty((count, self.layout.chunks, 2), np.int64)
        self.squared_norms = [0] * count

    def __len__(self) -> int:
        """How many deltas there are."""
        return len(self.places)

    def read_untrusted(self, at: int, blob: bytes) -> None:
        """Read delta number `at`, checked as by `codec.decode_untrusted`, and its squared norm in units of 2^-72.

        Raises:
            RemoteProtocolError: the blob is not the canonical encoding of a delta of this run.
        """
        layout = self.layout
        parts, high = read_parts_untrusted(blob, layout, self._codec, self._compiled, self.places[at])
        above = parts.levels + parts.steps
        self.magnitudes[at, :, 0], self.magnitudes[at, :, 1] = LEVEL_UNITS[parts.levels], LEVEL_UNITS[above]
        counts = np.bincount(parts.levels, layout.kept - high, LEVELS) + np.bincount(above, high, LEVELS)  # exact: far below 2^53
        self.squared_norms[at] = sum(int(count) * units**2 for count, units in zip(counts, LEVEL_UNITS.tolist(), strict=True))

    def delta(self, at: int) -> Delta:
        """Delta number `at` by itself."""
        low, high = np.ascontiguousarray(self.magnitudes[at].T)
        return delta_of(self.places[at], low, high, self.layout, self.kernels)

    def parts(self, span: Span) -> list[Part]:
        """What every delta has in `span`: indices and units, chunk by chunk."""
        layout, offsets, chunks = self.layout, self._offsets, slice(span.first, span.last)
        kept, begin = layout.kept[chunks], int(layout.first[span.first])
        starts, kinds = np.repeat(layout.starts[chunks], kept), np.repeat(offsets.kinds[chunks], kept)
        chunk = np.repeat(np.arange(0, _KINDS * len(kept), _KINDS), kept)
        found: list[Part] = []
        for places, magnitudes in zip(self.places[:, begin : begin + len(chunk)], self.magnitudes[:, chunks], strict=True):
            indices: Ints = starts + offsets.table.take(kinds | (places & POSITION))
            found.append((indices, np.hstack([magnitudes, -magnitudes]).take(chunk | (places >> POSITION_BITS))))
        return found

    @cached_property
    def _offsets(self) -> _Offsets:
        return _Offsets(self.layout)


class _Offsets:
    """Where positions lie: `table[kinds[chunk] | position]` is the distance from the first value of the chunk in the flat vector."""

    def __init__(self, layout: Layout) -> None:
        shapes, of_chunk = np.unique(layout.strides << POSITION_BITS | layout.widths - 1, return_inverse=True)
        widths, strides = (shapes & POSITION) + 1, shapes >> POSITION_BITS
        row, column = np.divmod(np.arange(POSITION + 1), widths[:, None])
        self.table: Ints = (row * strides[:, None] + column).ravel()
        self.kinds: Ints = of_chunk.astype(np.int64) << POSITION_BITS
