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
from nostrain.sparseloco.container import LOWEST, SHARE_BITS, STATE_BITS, WORD_BITS, Parts, Stream, lanes_of, share_of
from nostrain.sparseloco.layout import Layout
from nostrain.sparseloco.minifloat import tokens
from nostrain.sparseloco.tables import FREQUENCY_BITS, GAP_FRACTION, STEP_FRACTION, TOTAL, Table, gap_table, step_table

Ints = NDArray[np.int64]

_SHARE_ONE = 1 << SHARE_BITS
_WORD_MASK = (1 << WORD_BITS) - 1


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
    share = share_of(parts, layout)
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


def decode_stream_untrusted(stream: Stream, layout: Layout, codec: CodecSpec) -> Parts:
    """Read what `encode_stream` writes. Levels are not checked here, and neither is what only the codec knows.

    Raises:
        RemoteProtocolError: the words run out or are left over, a state does not end where it began, a gap leaves its chunk.
    """
    reader = _Reader(stream.states.copy(), stream.words)
    zigzags, steps = np.zeros(layout.chunks, np.int64), np.zeros(layout.chunks, np.int64)
    for at in _chunk_turns(layout):
        lanes = np.arange(len(at))
        zigzags[at] = reader.level_symbols(lanes)
        if codec.quantizer_bits == 2:
            steps[at] = reader.level_symbols(lanes)
    high_from = np.repeat(np.where(steps > 0, _SHARE_ONE - stream.share, _SHARE_ONE), layout.kept)
    positions, codes = _read_values(reader, layout, codec, high_from)
    if reader.used != len(stream.words) or (reader.states != LOWEST).any():
        raise RemoteProtocolError("delta", "the coder does not end where it began")
    return Parts(levels_of(zigzags), steps, positions, codes)


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
    gaps, places, left = gaps_of(parts.positions, layout)
    contexts = gap_table(codec.chunk, codec.topk)
    these = tokens(gaps, GAP_FRACTION)
    bits = (gaps - contexts.table.base[these]) << 1 | parts.codes >> 1
    high = (parts.codes & 1) == 1
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
    """The states of all lanes and how many of the words are used."""

    states: Ints
    words: NDArray[np.uint32]
    used: int = 0

    def level_symbols(self, lanes: Ints) -> Ints:
        """One number of the step table from each of `lanes`."""
        table = step_table()
        state, these = self.token(table, np.zeros(len(lanes), np.int64), self.states[lanes])
        width = table.width[these]
        numbers = table.base[these] + (state & ((1 << width) - 1))
        self.refill(lanes, state >> width)
        return numbers

    def token(self, table: Table, context: Ints, state: Ints) -> tuple[Ints, Ints]:
        """Take a token off each state: the states after it, and the tokens."""
        slot = state & (TOTAL - 1)
        these = table.token_of_slot[context, slot].astype(np.int64)
        return table.frequency[context, these] * (state >> FREQUENCY_BITS) + slot - table.start[context, these], these

    def refill(self, lanes: Ints, state: Ints) -> None:
        """Store the states of `lanes`; those below their interval take a word, in order of the lanes."""
        short = np.flatnonzero(state < LOWEST)
        if self.used + len(short) > len(self.words):
            raise RemoteProtocolError("delta", "it ends before its last symbol")
        state[short] = state[short] << WORD_BITS | self.words[self.used : self.used + len(short)].astype(np.int64)
        self.used += len(short)
        self.states[lanes] = state


def _read_values(reader: _Reader, layout: Layout, codec: CodecSpec, high_from: Ints) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Positions and codes; the high bit of a value is set from the part `high_from` on."""
    contexts = gap_table(codec.chunk, codec.topk)
    table = contexts.table
    all_left, lengths = _left(layout), np.repeat(layout.lengths, layout.kept)
    fresh = np.zeros(layout.values, np.bool_)
    fresh[layout.first] = True
    positions, codes = np.empty(layout.values, np.int32), np.empty(layout.values, np.uint8)
    places = np.zeros(lanes_of(layout), np.int64)
    for lanes, at in _value_turns(layout):
        left = all_left[at]
        room = np.where(fresh[at], lengths[at], places[lanes])
        state, these = reader.token(table, contexts.contexts(room, left), reader.states[lanes])
        bits = state & ((2 << table.width[these]) - 1)
        state = state >> table.width[these] + 1
        room = room - (table.base[these] + (bits >> 1)) - 1
        if (room < left - 1).any():
            raise RemoteProtocolError("delta", "a position lies outside of its chunk")
        edge = high_from[at]
        part = state & (_SHARE_ONE - 1)
        high = part >= edge
        state = np.where(high, _SHARE_ONE - edge, edge) * (state >> SHARE_BITS) + np.where(high, part - edge, part)
        reader.refill(lanes, state)
        places[lanes] = room
        positions[at] = lengths[at] - room - 1
        codes[at] = high | (bits & 1) << 1
    return positions, codes
