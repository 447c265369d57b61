"""Which values of a chunk are kept, and with what magnitudes: top-k and quantizer in numpy (SparseLoCo, arXiv:2508.15706, algorithm 1).

Both work on whole numbers from the first comparison on, so every implementation finds the same: magnitudes are compared as float32 and
quantized as units of 2^-36. Of a chunk, the k values of largest magnitude are kept, ties to the lower position; below 2^-36 all are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.sparseloco.container import Parts, places_of
from nostrain.sparseloco.delta import UNIT
from nostrain.sparseloco.layout import Grid, Layout
from nostrain.sparseloco.minifloat import LEVEL_UNITS, LEVELS, nearest_levels

LLOYD_STEPS: Final = 6
LARGEST_UNITS: Final = int(LEVEL_UNITS[LEVELS - 1])
_PIECE: Final = 1 << 18

Ints = NDArray[np.int64]
Means = Callable[[Ints, Layout], tuple[Ints, Ints]]


def top_k(values: NDArray[np.float32], layout: Layout) -> NDArray[np.int32]:
    """Positions inside their chunks of the kept values, chunk by chunk, increasing. Works in pieces of about 256K values.

    Raises:
        LocalProtocolError: a value is infinite or no number.
    """
    positions = np.empty(layout.values, np.int32)
    for grid in layout.grids:
        matrix = values[grid.offset : grid.offset + grid.rows * grid.columns].reshape(grid.rows, grid.columns)
        for chunks, tiles in _pieces(matrix, grid):
            k = int(layout.kept[chunks[0]])
            positions[layout.first[chunks][:, None] + np.arange(k)] = _top_k_rows(tiles, k)
    return positions


def units_of(kept: NDArray[np.float32]) -> Ints:
    """Magnitudes in units, rounded towards zero and limited to the largest level."""
    return np.minimum(np.abs(kept).astype(np.float64) / UNIT, LARGEST_UNITS).astype(np.int64)


def quantize(kept: NDArray[np.float32], positions: NDArray[np.int32], layout: Layout, bits: int, means: Means | None = None) -> Parts:
    """One magnitude a chunk (`bits` = 1), or two by Lloyd's algorithm (2). A chunk of zeros has level 0, and no signs.

    `means` is `lloyd` or an equal of it.
    """
    units = units_of(kept)
    some = np.minimum(np.maximum.reduceat(units, layout.first), 1)  # a value above zero never rounds to nothing
    levels = nearest_levels(np.maximum(_sum(units, layout) // layout.kept, some))
    steps, high = np.zeros_like(levels), np.zeros(layout.values, np.bool_)
    if bits == 2:
        low_mean, high_mean = (means or lloyd)(units, layout)
        low, above = nearest_levels(np.maximum(low_mean, some)), nearest_levels(high_mean)
        high = 2 * units > np.repeat(LEVEL_UNITS[low] + LEVEL_UNITS[above], layout.kept)
        uses_high = _sum(high, layout)
        two = (low < above) & (uses_high > 0) & (uses_high < layout.kept)
        levels, steps, high = np.where(two, low, levels), np.where(two, above - low, 0), high & np.repeat(two, layout.kept)
    negative = (kept < 0) & np.repeat(levels > 0, layout.kept)
    codes: NDArray[np.uint8] = high.astype(np.uint8) | negative.astype(np.uint8) << np.uint8(1)
    return Parts(levels, steps, places_of(positions, codes))


def lloyd(units: Ints, layout: Layout) -> tuple[Ints, Ints]:
    """Lloyd's two means of every chunk, from its mean on, in LLOYD_STEPS steps; divisions round down. Equal where no value lies above the other."""
    count, total = layout.kept, _sum(units, layout)
    bar = total // count
    low = high = bar
    for _ in range(LLOYD_STEPS):
        upper = units > np.repeat(bar, count)
        above, total_above = _sum(upper, layout), _sum(units * upper, layout)
        low = (total - total_above) // (count - above)
        high = np.where(above > 0, total_above // np.maximum(above, 1), low)
        bar = (low + high) // 2
    return low, high


def _sum(numbers: NDArray[np.bool_] | Ints, layout: Layout) -> Ints:
    return np.add.reduceat(numbers, layout.first, dtype=np.int64)


def _pieces(matrix: NDArray[np.float32], grid: Grid) -> Iterator[tuple[Ints, NDArray[np.float32]]]:
    """Chunks of one shape, [n], and their magnitudes, [n, values], until all of the tensor are done."""
    for rows, height in _cuts(grid.rows, grid.height):
        for columns, width in _cuts(grid.columns, grid.width):
            across = (columns.stop - columns.start) // width
            at_once = max(1, _PIECE // (height * width * across))
            for top in range(rows.start, rows.stop, height * at_once):
                part = matrix[top : min(top + height * at_once, rows.stop), columns]
                down = len(part) // height
                tiles = np.abs(part.reshape(down, height, across, width).transpose(0, 2, 1, 3)).reshape(down * across, -1)
                tiles[tiles < UNIT] = 0
                first = grid.chunk + (top // grid.height + np.arange(down)[:, None]) * grid.across + columns.start // grid.width
                yield (first + np.arange(across)).ravel(), tiles


def _cuts(side: int, tile: int) -> Iterator[tuple[slice, int]]:
    """The part of a side that whole tiles cover, and the rest, with the tile's length in each."""
    whole = side - side % tile
    if whole:
        yield slice(0, whole), tile
    if whole < side:
        yield slice(whole, side), side - whole


def _top_k_rows(tiles: NDArray[np.float32], k: int) -> Ints:
    """[n, values] → [n, k] columns, increasing. The k-th largest value is the bar; of values equal to it, the first ones fill up."""
    largest = np.partition(tiles, tiles.shape[1] - k, axis=1)[:, tiles.shape[1] - k :]
    if not np.isfinite(largest).all():
        raise LocalProtocolError("encode: the pseudo-gradient is not finite")
    bar = largest[:, :1]
    keep = tiles >= bar
    tied = np.flatnonzero(np.count_nonzero(keep, axis=1) > k)
    if len(tied):
        above, level = tiles[tied] > bar[tied], tiles[tied] == bar[tied]
        room = k - np.count_nonzero(above, axis=1)[:, None]
        keep[tied] = above | (level & (np.cumsum(level, axis=1) <= room))
    return np.nonzero(keep)[1].reshape(len(tiles), k)
