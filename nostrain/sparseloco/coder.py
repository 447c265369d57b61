"""The entropy coder in numpy: levels, gaps, signs and high bits ⇄ states and words, all lanes at once (docs/protocol.md, section 8).

A symbol is coded as up to three parts on one state: a token with its frequency, further bits as they are, and (for values in chunks of two
magnitudes) the high bit with the share of the header. Together they use at most 31 bits, so a state takes at most one word afterwards.
`kernels` does the same one lane at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.manifest import CodecSpec
from nostrain.sparseloco.container import (
    LOWEST,
    POSITION_BITS,
    SHARE_BITS,
    STATE_BITS,
    WORD_BITS,
    Parts,
    Stream,
    high_counts,
    lanes_of,
    share_of,
)
from nostrain.sparseloco.layout import Layout
from nostrain.sparseloco.minifloat import tokens
from nostrain.sparseloco.tables import (
    FIELD_BITS,
    FREQUENCY_BITS,
    GAP_FRACTION,
    RECIPROCAL_BITS,
    ROW_BITS,
    STEP_FRACTION,
    TOTAL,
    Table,
    gap_reader,
    gap_table,
    step_table,
)

Ints = NDArray[np.int64]

_SHARE_ONE = 1 << SHARE_BITS
_WORD_MASK = (1 << WORD_BITS) - 1
_FIELD = (1 << FIELD_BITS) - 1


@dataclass(frozen=True, slots=True)
class _Symbols:
    """What one kind of symbol does to a state, int64 each: token's frequency and start, further bits and their number, high bit's frequency and start."""

    frequency: Ints
    start: Ints
    bits: Ints
    width: Ints
    part: Ints
    part_start: Ints


def encode_stream(parts: Parts, layout: Layout, codec: CodecSpec) -> Stream:
    """Code `parts`, which the caller has made canonical."""
    share = share_of(parts.steps, high_counts(parts, layout), layout)
    steps = _level_symbols(zigzag(np.diff(parts.levels, prepend=0)))
    values = _value_symbols(parts, layout, codec, share)
    rounds = [(steps, at) for at in _chunk_turns(layout)]
    if codec.quantizer_bits == 2:
        second = _level_symbols(parts.steps)
        rounds = [(symbols, at) for _, at in rounds for symbols in (steps, second)]
    states = np.full(lanes_of(layout), LOWEST, np.int64)
    words: list[Ints] = []
    for lanes, at in reversed(_value_turns(layout)):
        words.append(_push(states, lanes, values, at))
    for symbols, at in reversed(rounds):
        words.append(_push(states, np.arange(len(at)), symbols, at))
    return Stream(states, np.concatenate(words[::-1]).astype(np.uint32), share)


def decode_stream_untrusted(stream: Stream, layout: Layout, codec: CodecSpec, places: NDArray[np.uint16] | None = None) -> Parts:
    """Read what `encode_stream` writes, places into `places` if it is given. Levels are not checked here, and neither is what only the codec knows.

    Raises:
        RemoteProtocolError: the words run out or are left over, a state does not end where it began, a gap leaves its chunk.
    """
    reader, states = _Reader(stream.words), stream.states.copy()
    zigzags, steps = np.zeros(layout.chunks, np.int64), np.zeros(layout.chunks, np.int64)
    for at in _chunk_turns(layout):
        zigzags[at] = reader.level_symbols(states[: len(at)])
        if codec.quantizer_bits == 2:
            steps[at] = reader.level_symbols(states[: len(at)])
    high_from = np.where(steps > 0, _SHARE_ONE - stream.share, _SHARE_ONE)
    places = np.empty(layout.values, np.uint16) if places is None else places
    _read_values(reader, states, layout, codec, high_from, places)
    return Parts(levels_of(zigzags), steps, places)


def zigzag(steps: Ints) -> Ints:
    """0, -1, 1, -2, 2, … as 0, 1, 2, 3, 4, …"""
    return np.where(steps < 0, -2 * steps - 1, 2 * steps)


def levels_of(zigzags: Ints) -> Ints:
    """The levels that start from 0 and move by these steps."""
    levels: Ints = np.cumsum(np.where(zigzags & 1, -(zigzags >> 1) - 1, zigzags >> 1))
    return levels


def gaps_of(positions: NDArray[np.int32], layout: Layout) -> tuple[Ints, Ints, Ints]:
    """Free places passed over before every value; places and values that are left there."""
    before = np.empty(layout.values, np.int64)
    before[1:] = positions[:-1]
    before[layout.first] = -1
    left = _left(layout)
    return positions - before - 1, np.repeat(layout.lengths, layout.kept) - before - 1, left


def _left(layout: Layout) -> Ints:
    """Values still to come in its chunk, itself included, at every value."""
    return np.repeat(layout.first + layout.kept, layout.kept) - np.arange(layout.values)


def _level_symbols(numbers: Ints) -> _Symbols:
    table = step_table()
    these = tokens(numbers, STEP_FRACTION)
    return _symbols(
        table, np.zeros_like(these), these, numbers - table.base[these], table.width[these], np.full_like(these, _SHARE_ONE), 0 * these
    )


def _value_symbols(parts: Parts, layout: Layout, codec: CodecSpec, share: int) -> _Symbols:
    gaps, places, left = gaps_of(parts.positions(), layout)
    contexts = gap_table(codec.chunk, codec.topk)
    these = tokens(gaps, GAP_FRACTION)
    codes = parts.codes()
    bits = (gaps - contexts.table.base[these]) << 1 | codes >> 1
    high = (codes & 1) == 1
    low_part = np.repeat(np.where(parts.steps > 0, _SHARE_ONE - share, _SHARE_ONE), layout.kept)
    part, part_start = np.where(high, share, low_part), np.where(high, _SHARE_ONE - share, 0)
    return _symbols(contexts.table, contexts.contexts(places, left), these, bits, contexts.table.width[these] + 1, part, part_start)


def _symbols(table: Table, context: Ints, these: Ints, bits: Ints, width: Ints, part: Ints, part_start: Ints) -> _Symbols:
    return _Symbols(
        table.frequency[context, these].astype(np.int64), table.start[context, these].astype(np.int64), bits, width, part, part_start
    )


def _chunk_turns(layout: Layout) -> Iterator[Ints]:
    """The chunks whose levels are coded at the same time, one a lane; the last turn may have fewer."""
    for turn in range(0, layout.chunks, lanes_of(layout)):
        yield np.arange(turn, min(turn + lanes_of(layout), layout.chunks))


def _value_turns(layout: Layout) -> list[tuple[Ints, Ints]]:
    """Lanes and, for each, the value that is coded at the same time: every lane goes through its chunks without a pause."""
    lanes = lanes_of(layout)
    before = np.zeros(layout.chunks, np.int64)
    for chunks in _chunk_turns(layout):
        nexts = chunks[chunks + lanes < layout.chunks] + lanes
        before[nexts] = before[nexts - lanes] + layout.kept[nexts - lanes]
    lane = np.repeat(np.arange(layout.chunks) % lanes, layout.kept)
    turn = np.repeat(before - layout.first, layout.kept) + np.arange(layout.values)
    order = np.argsort(turn * lanes + lane)
    cuts = np.cumsum(np.bincount(turn))[:-1]
    return list(zip(np.split(lane[order], cuts), np.split(order, cuts), strict=True))


def _push(states: Ints, lanes: Ints, symbols: _Symbols, at: Ints) -> Ints:
    """Code one symbol in each of `lanes`; the words that their states gave away, in order of the lanes."""
    state = states[lanes]
    frequency, width, part = symbols.frequency[at], symbols.width[at], symbols.part[at]
    full = state >= (frequency * part) << (STATE_BITS - FREQUENCY_BITS - SHARE_BITS - width)
    words = state[full] & _WORD_MASK
    state = np.where(full, state >> WORD_BITS, state)
    quotient, rest = np.divmod(state, part)
    state = (quotient << SHARE_BITS) + rest + symbols.part_start[at]
    state = state << width | symbols.bits[at]
    quotient, rest = np.divmod(state, frequency)
    states[lanes] = (quotient << FREQUENCY_BITS) + rest + symbols.start[at]
    return words


@dataclass(slots=True)
class _Reader:
    """The words, and how many of them are used."""

    words: NDArray[np.uint32]
    used: int = 0

    def level_symbols(self, states: Ints) -> Ints:
        """One number of the step table from each of `states`, in place."""
        table, slot = step_table(), states & (TOTAL - 1)
        these = table.token_of_slot[0, slot].astype(np.int64)
        state, width = table.frequency[0, these] * (states >> FREQUENCY_BITS) + slot - table.start[0, these], table.width[these]
        states[:] = state >> width
        self.refill(states)
        numbers: Ints = table.base[these] + (state & ((1 << width) - 1))
        return numbers

    def refill(self, states: Ints) -> None:
        """Those below their interval take a word, in order, in place."""
        short = np.flatnonzero(states < LOWEST)
        if self.used + len(short) > len(self.words):
            raise RemoteProtocolError("delta", "it ends before its last symbol")
        states[short] = states[short] << WORD_BITS | self.words[self.used : self.used + len(short)]
        self.used += len(short)


def _read_values(reader: _Reader, states: Ints, layout: Layout, codec: CodecSpec, high_from: Ints, places: NDArray[np.uint16]) -> None:
    """Read `places`; in a chunk the high bit of a value is set from the part `high_from` on. A state must end where it began, and every word be used.

    Between two turns after which a chunk ends, the same lanes are at work.
    """
    gaps, lanes, ended = gap_reader(codec.chunk, codec.topk), len(states), True
    chunk, at, room, left = np.arange(lanes), layout.first[:lanes].copy(), layout.lengths[:lanes].copy(), layout.kept[:lanes].copy()
    while len(chunk):
        edge, other, run = high_from[chunk], _SHARE_ONE - 2 * high_from[chunk], int(left.min())
        read = np.empty((run, len(chunk)), np.int64)
        for turn in range(run):
            row = gaps.rows[gaps.offset[left] + (room * gaps.reciprocal[left] >> RECIPROCAL_BITS)]
            slot = states & (TOTAL - 1)
            entry = gaps.entries[row << ROW_BITS | gaps.token_of_slot[row << FREQUENCY_BITS | slot]]
            state = (entry & _FIELD) * (states >> FREQUENCY_BITS) + slot - (entry >> FIELD_BITS & _FIELD)
            width = entry >> 3 * FIELD_BITS
            bits = state & ((1 << width) - 1)
            state >>= width
            room -= (entry >> 2 * FIELD_BITS & _FIELD) + (bits >> 1) + 1
            left -= 1
            if (room < left).any():
                raise RemoteProtocolError("delta", "a position lies outside of its chunk")
            part = state & (_SHARE_ONE - 1)
            high = (part >= edge).astype(np.int64)
            states = (edge + high * other) * (state >> SHARE_BITS) + part - high * edge
            reader.refill(states)
            read[turn] = room << 2 | (bits & 1) << 1 | high
        places[at + np.arange(run)[:, None]] = layout.lengths[chunk] - 1 - (read >> 2) | (read & 3) << POSITION_BITS
        at += run
        over = left == 0
        chunk[over] += lanes
        gone = chunk >= layout.chunks
        ended &= bool((states[gone] == LOWEST).all())
        chunk, at, room, left, states, over = (array[~gone] for array in (chunk, at, room, left, states, over))
        at[over], room[over], left[over] = layout.first[chunk[over]], layout.lengths[chunk[over]], layout.kept[chunk[over]]
    if not ended or reader.used != len(reader.words):
        raise RemoteProtocolError("delta", "the coder does not end where it began")
