"""The loops of the outer step that numba compiles for `kernels`: norms, sums, whole tiles, and the rules that look at a coordinate's values (`rules`)."""

from __future__ import annotations

import numpy as np

from nostrain.sparseloco.container import POSITION, POSITION_BITS
from nostrain.sparseloco.jitted import jit

_TILES = 4


@jit
def square_sums(units):
    """Of numbers below 2^40, at most 2^20 of them: the sums of high · high, high · low and low · low of their halves of 20 bits."""
    high_sum = mixed_sum = low_sum = np.int64(0)
    for at in range(len(units)):
        unit = abs(units[at])
        high, low = unit >> 20, unit & 0xFFFFF
        high_sum += high * high
        mixed_sum += high * low
        low_sum += low * low
    return high_sum, mixed_sum, low_sum


@jit
def add_weighted(total, indices, units, weight, begin):
    """Add the units · weight of a delta to the sums of the block that begins at `begin`."""
    for at in range(len(indices)):
        total[np.uint64(indices[at] - begin)] += units[at] * weight


@jit
def finish_step(flat, total, unit, least, out):
    """flat - total · unit, magnitudes under `least` as +0."""
    for at in range(len(flat)):
        value = flat[at] - np.float32(total[at]) * unit
        out[at] = np.float32(0) if abs(value) < least else value


@jit
def step_spans(
    flat, edges, places, magnitudes, weights, starts, lengths, widths, strides, first, kept, unit, least, out
):  # fmt: skip
    """The outer step of the spans `edges` (begin, end, first chunk, last chunk), each in a buffer: tiles are not read from far apart.

    `places` [deltas, values] as `container.Parts`, `magnitudes` [deltas, chunks, 2] in units.
    """
    most = lengths.max()
    near, totals = np.empty((edges[:, 1] - edges[:, 0]).max(), np.float32), np.empty(most * _TILES, np.int64)
    for span in range(len(edges)):
        begin, end, last = edges[span, 0], edges[span, 1], edges[span, 3]
        _copy(near, 0, flat, begin, end - begin)
        for chunk in range(edges[span, 2], last, _TILES):
            _sum_tiles(totals, most, chunk, min(chunk + _TILES, last), places, magnitudes, weights, first, kept)
            for tile in range(chunk, min(chunk + _TILES, last)):
                rows, sums = lengths[tile] // widths[tile], most * (tile - chunk)
                _finish_tile(near, starts[tile] - begin, rows, widths[tile], strides[tile], totals, sums, unit, least)
        _copy(out, begin - edges[0, 0], near, 0, end - begin)


@jit
def _copy(out, at, source, begin, count):
    for place in range(count):
        out[np.uint64(at + place)] = source[np.uint64(begin + place)]


@jit
def _sum_tiles(totals, most, chunk, last, places, magnitudes, weights, first, kept):
    """The weighted sums of some tiles, each in `most` of the `totals`: of a delta, enough is read at a time that a processor fetches ahead."""
    products = np.empty(4, np.int64)
    for at in range(most * (last - chunk)):
        totals[at] = 0
    for delta in range(len(weights)):
        for tile in range(chunk, last):
            products[0], products[1] = magnitudes[delta, tile, 0] * weights[delta], magnitudes[delta, tile, 1] * weights[delta]
            products[2], products[3] = -products[0], -products[1]
            for value in range(first[tile], first[tile] + kept[tile]):
                place = np.int64(places[delta, value])
                totals[np.uint64(most * (tile - chunk) + (place & POSITION))] += products[np.uint64(place >> POSITION_BITS)]


@jit
def _finish_tile(part, start, rows, width, stride, totals, sums, unit, least):
    """As `finish_step` for a tile whose sums begin at `sums`, in place."""
    for row in range(rows):
        to, source = np.uint64(start + row * stride), np.uint64(sums + row * width)
        for column in range(width):
            here = to + np.uint64(column)
            value = part[here] - np.float32(totals[source + np.uint64(column)]) * unit
            part[here] = np.float32(0) if abs(value) < least else value


@jit
def count(counts, balance, indices, units, begin):
    """How many values that are not zero the coordinates of the block have, and how many more positive than negative ones."""
    for at in range(len(indices)):
        counts[np.uint64(indices[at] - begin)] += units[at] != 0
        balance[np.uint64(indices[at] - begin)] += np.sign(units[at])


@jit
def add_by_count(total, counts, indices, units, weights, begin):
    """As `add_weighted`, with the weight that belongs to the coordinate's count."""
    for at in range(len(indices)):
        to = np.uint64(indices[at] - begin)
        total[to] += units[at] * weights[counts[to]]


@jit
def drop_disputed(total, counts, balance, agreement, whole):
    """No step where the surplus of one sign is below `agreement` parts of `whole` of the values."""
    for at in range(len(total)):
        if abs(balance[at]) * whole < counts[at] * agreement:
            total[at] = 0


@jit
def gather(products, filled, counts, indices, units, weights, begin, least):
    """Put the products of one delta into the rows of `products` [block, deltas], kept in order, where the count exceeds `least`."""
    for at in range(len(indices)):
        to = np.uint64(indices[at] - begin)
        if units[at] == 0 or counts[to] <= least:
            continue
        product, place = units[at] * weights[counts[to]], filled[to]
        while place > 0 and products[to, place - 1] > product:
            products[to, place] = products[to, place - 1]
            place -= 1
        products[to, place] = product
        filled[to] += 1


@jit
def sum_inner(total, products, filled, trim):
    """The sums of the products that are left without the `trim` first and last, wherever some were gathered."""
    for at in range(len(total)):
        if filled[at]:
            total[at] = products[at, trim : filled[at] - trim].sum()
