"""The same codec compiled by numba: one pass over the values, one lane after the other. Bit-equal to `select`, `coder` and `codec`.

The loops are in `jitted`, `jitted_coder` and `jitted_step`; what is done a chunk at a time stays numpy's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec
from nostrain.sparseloco import coder, jitted, jitted_coder, jitted_step
from nostrain.sparseloco.container import LOWEST, Parts, Stream, lanes_of, share_of
from nostrain.sparseloco.delta import UNIT, Delta, empty_indices
from nostrain.sparseloco.layout import Layout, Span
from nostrain.sparseloco.rules import Part, Step
from nostrain.sparseloco.select import LLOYD_STEPS
from nostrain.sparseloco.tables import gap_reader, gap_table, step_table
from nostrain.units import PPM

_BLOCK = 1 << 20


def top_k(values: NDArray[np.float32], layout: Layout) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The kept values and, as `select.top_k`, their positions.

    Raises:
        LocalProtocolError: a kept value is not finite.
    """
    positions, kept = np.empty(layout.values, np.int32), np.empty(layout.values, np.float32)
    shape = (layout.starts, layout.lengths, layout.widths, layout.strides, layout.first, layout.kept)
    jitted.top_k(values.view(np.int32), *shape, np.float32(UNIT).view(np.int32), positions, kept.view(np.int32))
    if not np.isfinite(kept).all():
        raise LocalProtocolError("encode: the pseudo-gradient is not finite")
    return kept, positions


def lloyd(units: NDArray[np.int64], layout: Layout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `select.lloyd`."""
    low, high = np.empty(layout.chunks, np.int64), np.empty(layout.chunks, np.int64)
    jitted.lloyd(units, layout.first, layout.kept, LLOYD_STEPS, low, high)
    return low, high


def encode_stream(parts: Parts, layout: Layout, codec: CodecSpec) -> Stream:
    """As `coder.encode_stream`."""
    gaps, steps, lanes = gap_table(codec.chunk, codec.topk), step_table(), lanes_of(layout)
    share = share_of(parts.steps, high_counts(parts, layout), layout)
    states = np.full(lanes, LOWEST, np.int64)
    words = np.empty(layout.values + 2 * layout.chunks, np.uint32)
    used = jitted_coder.encode_values(
        states, words, parts.places, parts.steps, share, layout.lengths, layout.kept, layout.first,
        gaps.table.frequency, gaps.table.start, gaps.table.base, gaps.table.width, gaps.k_row, gaps.spacing_column, gaps.context,
    )  # fmt: skip
    numbers = np.empty((2, layout.chunks), np.int64)
    numbers[0], numbers[1] = coder.zigzag(np.diff(parts.levels, prepend=0)), parts.steps
    used = jitted_coder.encode_levels(
        states, words, used, numbers[: codec.quantizer_bits], steps.frequency[0], steps.start[0], steps.base, steps.width
    )
    return Stream(states, words[:used][::-1].copy(), share)


def decode_stream_untrusted(stream: Stream, layout: Layout, codec: CodecSpec, places: NDArray[np.uint16] | None = None) -> Parts:
    """As `coder.decode_stream_untrusted`.

    Raises:
        RemoteProtocolError: as there.
    """
    gaps, table = gap_reader(codec.chunk, codec.topk), step_table()
    states, words = stream.states.copy(), np.append(stream.words, np.zeros(len(stream.states), np.uint32))
    numbers = np.zeros((2, layout.chunks), np.int64)
    places = np.empty(layout.values, np.uint16) if places is None else places
    shape = (layout.lengths, layout.kept, layout.first)
    used = jitted_coder.decode_levels(
        states, words, numbers[: codec.quantizer_bits], table.token_of_slot[0], table.frequency[0], table.start[0], table.base, table.width
    )
    inside = ended = True
    if used <= len(stream.words):
        inside, used, ended = jitted_coder.decode_values(
            states, words, used, numbers[1], stream.share, *shape,
            gaps.offset, gaps.reciprocal, gaps.rows, gaps.token_of_slot, gaps.entries, places,
        )  # fmt: skip
    if not inside:
        raise RemoteProtocolError("delta", "a position lies outside of its chunk")
    if used > len(stream.words):
        raise RemoteProtocolError("delta", "it ends before its last symbol")
    if used < len(stream.words) or not ended:
        raise RemoteProtocolError("delta", "the coder does not end where it began")
    return Parts(coder.levels_of(numbers[0]), numbers[1], places)


def high_counts(parts: Parts, layout: Layout) -> NDArray[np.int64]:
    """As `container.high_counts`."""
    counts = np.empty(layout.chunks, np.int64)
    jitted_coder.count_high(parts.places, layout.first, layout.kept, counts)
    return counts


def delta_of(places: NDArray[np.uint16], low: NDArray[np.int64], high: NDArray[np.int64], layout: Layout) -> Delta:
    """As `codec.delta_of`, band by band of tiles."""
    indices = empty_indices(layout.values, layout.size)
    units = np.empty(layout.values, np.int64)
    grids = np.array([(grid.chunk, grid.across, -(-grid.rows // grid.height)) for grid in layout.grids], np.int64)
    shape = (layout.starts, layout.widths, layout.strides, layout.first, layout.kept)
    jitted.scatter(grids, places, low, high, *shape, indices, units)
    return Delta(indices, units, layout.size)


add_weighted, finish_step = jitted_step.add_weighted, jitted_step.finish_step


def step_spans(
    flat: NDArray[np.float32], spans: Sequence[Span], layout: Layout, places: NDArray[np.uint16], magnitudes: NDArray[np.int64],
    weights: NDArray[np.int64], unit: np.float32, least: np.float32, out: NDArray[np.float32],
) -> None:  # fmt: skip
    """What `aggregate` does in numpy with consecutive `spans` where every value counts; `out`, which may be their memory, begins with the first."""
    edges = np.array([(span.begin, span.end, span.first, span.last) for span in spans], np.int64)
    shape = (layout.starts, layout.lengths, layout.widths, layout.strides, layout.first, layout.kept)
    jitted_step.step_spans(flat, edges, places, magnitudes, weights, *shape, unit, least, out)


def add_by_rule(total: NDArray[np.int64], parts: Sequence[Part], step: Step, begin: int) -> None:
    """As `rules.add_by_rule`."""
    counts, balance = np.zeros_like(total), np.zeros_like(total)
    for indices, units in parts:
        jitted_step.count(counts, balance, indices, units, begin)
    columns = np.ascontiguousarray(step.table.T)
    for weights, (indices, units) in zip(columns, parts, strict=True):
        jitted_step.add_by_count(total, counts, indices, units, weights, begin)
    if step.agreement_ppm:
        jitted_step.drop_disputed(total, counts, balance, step.agreement_ppm, PPM)
    if step.trim:
        products, filled = np.empty((len(total), len(parts)), np.int64), np.zeros_like(total)
        for weights, (indices, units) in zip(columns, parts, strict=True):
            jitted_step.gather(products, filled, counts, indices, units, weights, begin, 2 * step.trim)
        jitted_step.sum_inner(total, products, filled, step.trim)


def squared_norm(delta: Delta) -> int:
    """As `aggregate.squared_norm`: the sums of the products of the halves."""
    total = 0
    for at in range(0, len(delta.units), _BLOCK):
        high, mixed, low = jitted_step.square_sums(delta.units[at : at + _BLOCK])
        total += (int(high) << 40) + (int(mixed) << 21) + int(low)
    return total
