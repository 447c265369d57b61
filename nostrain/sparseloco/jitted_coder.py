"""The entropy coder's loops for numba, one lane after the other: `coder` says what they do. Untyped, as `jitted`.

All is whole numbers below 2^63. Positions are used in the order of the chunks, so that lanes side by side touch memory side by side.
"""

from __future__ import annotations

import numpy as np

from nostrain.sparseloco.container import HIGH, LOWEST, POSITION, POSITION_BITS, SHARE_BITS, STATE_BITS, WORD_BITS
from nostrain.sparseloco.jitted import jit
from nostrain.sparseloco.tables import (
    FIELD_BITS,
    FREQUENCY_BITS,
    GAP_FRACTION,
    RECIPROCAL_BITS,
    ROW_BITS,
    STEP_FRACTION,
    TOTAL,
)

_SHARE_ONE = 1 << SHARE_BITS
_WORD_MASK = (1 << WORD_BITS) - 1
_FIELD = (1 << FIELD_BITS) - 1
_FREE_BITS = STATE_BITS - FREQUENCY_BITS - SHARE_BITS


@jit
def _token(number, fraction):
    exponent = 0
    while number >> exponent >= 2 << fraction:
        exponent += 1
    return (exponent << fraction) + (number >> exponent)


@jit
def encode_values(
    states, words, places, steps, share, lengths, kept, first, frequency, start, base, width, k_row, spacing_column, context
):  # fmt: skip
    """Code all values, the last one first; `words` backwards. Returns how many there are."""
    lanes, chunks, used = len(states), len(first), 0
    chunk_of, at_of, counts = np.empty(lanes, np.int64), np.empty(lanes, np.int64), np.zeros(lanes, np.int64)
    for chunk in range(chunks):
        lane = chunk % lanes
        counts[lane] += kept[chunk]
        chunk_of[lane], at_of[lane] = chunk, first[chunk] + kept[chunk]
    for turn in range(counts.max() - 1, -1, -1):
        for lane in range(lanes - 1, -1, -1):
            if turn >= counts[lane]:
                continue
            if at_of[lane] == first[chunk_of[lane]]:
                chunk_of[lane] -= lanes
                at_of[lane] = first[chunk_of[lane]] + kept[chunk_of[lane]]
            at_of[lane] -= 1
            at, chunk = at_of[lane], chunk_of[lane]
            place = np.int64(places[at])
            before = np.int64(places[at - 1] & POSITION) if at > first[chunk] else -1
            gap, left = (place & POSITION) - before - 1, first[chunk] + kept[chunk] - at
            row, token = context[k_row[left] + spacing_column[(lengths[chunk] - before - 1) // left]], _token(gap, GAP_FRACTION)
            high, edge = place & HIGH, _SHARE_ONE - share if steps[chunk] > 0 else _SHARE_ONE
            part, part_start = (_SHARE_ONE - edge, edge) if high else (edge, 0)
            bits, count = (gap - base[token]) << 1 | place >> POSITION_BITS + 1, width[token] + 1
            times, state = np.int64(frequency[row, token]), states[lane]
            if state >= (times * part) << (_FREE_BITS - count):
                words[used] = state & _WORD_MASK
                used += 1
                state >>= WORD_BITS
            quotient = state // part
            state = (quotient << SHARE_BITS) + state - quotient * part + part_start
            state = state << count | bits
            quotient = state // times
            states[lane] = (quotient << FREQUENCY_BITS) + state - quotient * times + start[row, token]
    return used


@jit
def encode_levels(states, words, used, numbers, frequency, start, base, width):
    """Code `numbers` [kinds, chunks], which are decoded first, after the values; returns how many words there are now."""
    kinds, chunks = numbers.shape
    lanes = len(states)
    for turn in range((chunks - 1) // lanes, -1, -1):
        for kind in range(kinds - 1, -1, -1):
            for lane in range(min(lanes, chunks - turn * lanes) - 1, -1, -1):
                number = numbers[kind, turn * lanes + lane]
                token = _token(number, STEP_FRACTION)
                times, state = np.int64(frequency[token]), states[lane]
                if state >= times << (_FREE_BITS + SHARE_BITS - width[token]):
                    words[used] = state & _WORD_MASK
                    used += 1
                    state >>= WORD_BITS
                state = state << width[token] | (number - base[token])
                quotient = state // times
                states[lane] = (quotient << FREQUENCY_BITS) + state - quotient * times + start[token]
    return used


@jit
def decode_levels(states, words, numbers, token_of_slot, frequency, start, base, width):
    """Read `numbers`; returns how many words they wanted. There is one word more in `words` than there are."""
    kinds, chunks = numbers.shape
    lanes, used = len(states), 0
    for turn in range((chunks - 1) // lanes + 1):
        for kind in range(kinds):
            for lane in range(min(lanes, chunks - turn * lanes)):
                slot = states[lane] & (TOTAL - 1)
                token = np.int64(token_of_slot[slot])
                state = frequency[token] * (states[lane] >> FREQUENCY_BITS) + slot - start[token]
                numbers[kind, turn * lanes + lane] = base[token] + (state & ((1 << width[token]) - 1))
                state >>= width[token]
                if state < LOWEST:
                    state = state << WORD_BITS | np.int64(words[min(used, len(words) - 1)])
                    used += 1
                states[lane] = state
    return used


@jit
def _look_up(active, states, room, left, offset, reciprocal, rows, token_of_slot, entries, found):
    """What the next token of every lane means."""
    for lane in range(active):
        k = np.uint64(left[lane])
        row = rows[np.uint64(offset[k] + (room[lane] * reciprocal[k] >> RECIPROCAL_BITS))]
        token = np.int64(token_of_slot[np.uint64(row << FREQUENCY_BITS | states[lane] & (TOTAL - 1))])
        found[lane] = entries[np.uint64(row << ROW_BITS | token)]


@jit
def _advance(active, states, room, left, edge, found, out):
    """Take a value off every lane: places left and code to `out`. Negative if a position left its chunk."""
    least = np.int64(0)
    for lane in range(active):
        entry, state = found[lane], states[lane]
        state = (entry & _FIELD) * (state >> FREQUENCY_BITS) + (state & (TOTAL - 1)) - (entry >> FIELD_BITS & _FIELD)
        width = entry >> 3 * FIELD_BITS
        bits = state & ((np.int64(1) << width) - 1)
        state >>= width
        places, k = room[lane] - (entry >> 2 * FIELD_BITS & _FIELD) - (bits >> 1) - 1, left[lane] - 1
        room[lane], left[lane] = places, k
        least |= places - k
        part, bar = state & (_SHARE_ONE - 1), edge[lane]
        high = part >= bar
        states[lane] = (_SHARE_ONE - bar if high else bar) * (state >> SHARE_BITS) + (part - bar if high else part)
        out[lane] = places << 2 | (bits & 1) << 1 | high
    return least


@jit
def _refill(active, states, words, used):
    """Give every state that wants one a word; without a branch, since which do cannot be foretold. Returns how many are used."""
    for lane in range(active):
        short = states[lane] - LOWEST >> 63
        states[lane] = states[lane] << (short & WORD_BITS) | np.int64(words[np.uint64(used)]) & short
        used -= short
    return used


@jit
def count_high(places, first, kept, counts):
    """How many values of every chunk have the high magnitude."""
    for chunk in range(len(first)):
        count = np.int64(0)
        for at in range(first[chunk], first[chunk] + kept[chunk]):
            count += places[at] >> POSITION_BITS & 1
        counts[chunk] = count


@jit
def decode_values(
    states, words, used, steps, share, lengths, kept, first, offset, reciprocal, rows, token_of_slot, entries, places
):  # fmt: skip
    """Read all values into `places`: whether no position left its chunk, how many words that took, whether all states ended at the lowest.

    After the words come as many zeros as there are lanes. Every turn takes one value of each lane, in three loops: the first one's look-ups
    overlap, the second is vectorized by the compiler, the third has no branches. Between two turns after which a chunk ends, lanes do not change.
    """
    lanes, chunks, total, ended = len(states), len(first), len(words) - len(states), True
    chunk_of, at_of = np.arange(lanes), first[:lanes].copy()
    room, left, edge = lengths[:lanes].copy(), kept[:lanes].copy(), np.where(steps[:lanes] > 0, _SHARE_ONE - share, _SHARE_ONE)
    found, read, active = np.empty(lanes, np.int64), np.empty((kept.max(), lanes), np.uint16), lanes
    while active > 0:
        run = left[:active].min()
        for turn in range(run):
            _look_up(active, states, room, left, offset, reciprocal, rows, token_of_slot, entries, found)
            least = _advance(active, states, room, left, edge, found, read[turn])
            used = _refill(active, states, words, used)
            if least < 0 or used > total:
                return least >= 0, used, False
        going = 0
        for lane in range(active):
            chunk, at = chunk_of[lane], at_of[lane]
            for turn in range(run):
                value = np.int64(read[turn, lane])
                places[at + turn] = lengths[chunk] - 1 - (value >> 2) | (value & 3) << POSITION_BITS
            at_of[going], chunk_of[going], states[going] = at + run, chunk, states[lane]
            room[going], left[going], edge[going] = room[lane], left[lane], edge[lane]
            if left[lane] == 0:
                if chunk + lanes >= chunks:
                    ended &= states[lane] == LOWEST
                    continue
                chunk += lanes
                chunk_of[going], at_of[going], room[going], left[going] = chunk, first[chunk], lengths[chunk], kept[chunk]
                edge[going] = _SHARE_ONE - share if steps[chunk] > 0 else _SHARE_ONE
            going += 1
        active = going
    return True, used, ended
