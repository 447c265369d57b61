"""The loops that numba compiles for `kernels`, all but the entropy coder's and the outer step's. Untyped: numba takes the types from the arguments.

Everything but the order of magnitudes is whole numbers, and magnitudes are compared by their bits, so there is nothing to round;
`fastmath` stays off. Compiled code is cached beside this file, or in the user's cache folder where that cannot be written.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from nostrain.sparseloco.container import HIGH, NEGATIVE, POSITION

_ABSOLUTE = 0x7FFFFFFF
_GROUP = 16
_GUESS_MARGIN = 1 << 19  # of a float32's bits: 3 to 6 % below the bar of the chunk before; tried again at half and less

jit = njit(cache=True, nogil=True, error_model="numpy")


@jit
def top_k(bits, starts, lengths, widths, strides, first, kept, least, positions, found):
    """Positions and bits of the kept values of every chunk. `bits`: the float32 values as int32; below `least` they are zero.

    Only values from a guessed bar on are looked at one by one; the guess is a little less than the bar of the chunk before.
    """
    groups = np.empty((lengths.max() // _GROUP + 1, _GROUP), np.int32)
    tile = groups.ravel()
    candidates, scratch = np.empty(groups.size, np.int32), np.empty(groups.size, np.int32)
    guess = np.int32(0)
    for chunk in range(len(starts)):
        length, k = lengths[chunk], kept[chunk]
        _fill(tile, bits, starts[chunk], length, widths[chunk], strides[chunk], least)
        count = _from_bar(groups, length, guess, candidates)
        while count < k:
            guess = np.int32(max(guess - 8 * _GUESS_MARGIN, 0))
            count = _from_bar(groups, length, guess, candidates)
        for at in range(count):
            scratch[at] = tile[candidates[at]]
        bar = _largest(scratch, count, k)
        guess = np.int32(max(bar - _GUESS_MARGIN, 0))
        room = k
        for at in range(count):
            room -= tile[candidates[at]] > bar
        chosen = 0
        for at in range(count):
            magnitude = tile[candidates[at]]
            level = (magnitude == bar) & (room > 0)
            room -= level
            scratch[chosen] = candidates[at]
            chosen += (magnitude > bar) | level
        for at in range(k):
            row, to = scratch[at] // widths[chunk], first[chunk] + at
            positions[to] = scratch[at]
            found[to] = bits[starts[chunk] + row * strides[chunk] + scratch[at] - row * widths[chunk]]


@jit
def _fill(tile, bits, start, length, width, stride, least):
    """The magnitudes of a chunk, row by row; -1, which is below any bar, up to the end of the last group."""
    for row in range(length // width):
        source, out = bits[start + row * stride : start + row * stride + width], tile[row * width : (row + 1) * width]
        for column in range(width):
            magnitude = source[column] & np.int32(_ABSOLUTE)
            out[column] = magnitude if magnitude >= least else np.int32(0)
    for at in range(length, -(-length // _GROUP) * _GROUP):
        tile[at] = -1


@jit
def _from_bar(groups, length, bar, out):
    """Positions of the values that reach `bar`; their number. Most groups have none, which one comparison of a vector tells."""
    count = 0
    for group in range(-(-length // _GROUP)):
        hits = np.int32(0)
        for at in range(_GROUP):
            hits |= np.int32(groups[group, at] >= bar)
        if hits:
            for at in range(_GROUP):
                out[count] = group * _GROUP + at
                count += groups[group, at] >= bar
    return count


@jit
def _largest(numbers, count, k):
    """The k-th largest of the first `count` numbers, which it reorders (Hoare's quickselect)."""
    left, right, target = 0, count - 1, k - 1
    while left < right:
        pivot = numbers[(left + right) >> 1]
        low, high = left, right
        while low <= high:
            while numbers[low] > pivot:
                low += 1
            while numbers[high] < pivot:
                high -= 1
            if low <= high:
                numbers[low], numbers[high] = numbers[high], numbers[low]
                low += 1
                high -= 1
        if target <= high:
            right = high
        elif target >= low:
            left = low
        else:
            break
    return numbers[target]


@jit
def lloyd(units, first, kept, steps, low, high):
    """The two means of every chunk."""
    for chunk in range(len(first)):
        mine = units[first[chunk] : first[chunk] + kept[chunk]]
        total = np.int64(0)
        for at in range(len(mine)):
            total += mine[at]
        bar = total // len(mine)
        for _ in range(steps):
            above = total_above = np.int64(0)
            for at in range(len(mine)):
                upper = mine[at] > bar
                above += upper
                total_above += mine[at] if upper else 0
            low[chunk] = (total - total_above) // (len(mine) - above)
            high[chunk] = total_above // above if above > 0 else low[chunk]
            bar = (low[chunk] + high[chunk]) // 2


@jit
def scatter(grids, places, low, high, starts, widths, strides, first, kept, indices, units):
    """Indices into the flat vector, increasing, and signed units: a counting sort by row within each band of tiles."""
    for grid in range(len(grids)):
        begin, across, bands = grids[grid]
        for band in range(bands):
            tiles = range(begin + band * across, begin + (band + 1) * across)
            counts = np.zeros(66, np.int64)
            for chunk in tiles:
                for at in range(first[chunk], first[chunk] + kept[chunk]):
                    counts[np.int64(places[at] & POSITION) // widths[chunk] + 1] += 1
            counts[0] = first[begin + band * across]
            counts = np.cumsum(counts)
            for chunk in tiles:
                for at in range(first[chunk], first[chunk] + kept[chunk]):
                    position = np.int64(places[at] & POSITION)
                    row = position // widths[chunk]
                    to = counts[row]
                    counts[row] += 1
                    indices[to] = starts[chunk] + row * strides[chunk] + position - row * widths[chunk]
                    unit = high[chunk] if places[at] & HIGH else low[chunk]
                    units[to] = -unit if places[at] & NEGATIVE else unit
