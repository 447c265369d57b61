"""The entropy coder's loops for numba, one lane after the other: `coder` says what they do. Untyped, as `jitted`.

All is whole numbers below 2^63. Positions are used in the order of the chunks, so that lanes side by side touch memory side by side.
"""

from __future__ import annotations

import numpy as np

from nostrain.sparseloco.container import LOWEST, SHARE_BITS, STATE_BITS, WORD_BITS
from nostrain.sparseloco.jitted import jit
from nostrain.sparseloco.tables import FREQUENCY_BITS, GAP_FRACTION, STEP_FRACTION, TOTAL

_SHARE_ONE = 1 << SHARE_BITS
_WORD_MASK = (1 << WORD_BITS) - 1
_FREE_BITS = STATE_BITS - FREQUENCY_BITS - SHARE_BITS


@jit
def _token(number, fraction):
    exponent = 0
    while number >> exponent >= 2 << fraction:
        exponent += 1
    return (exponent << fraction) + (number >> exponent)


@jit
def encode_values(
    states, words, positions, codes, steps, share, lengths, kept, first, frequency, start, base, width, k_row, spacing_column, context
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
            before = positions[at - 1] if at > first[chunk] else -1
            gap, left = positions[at] - before - 1, first[chunk] + kept[chunk] - at
            row, token = context[k_row[left] + spacing_column[(lengths[chunk] - before - 1) // left]], _token(gap, GAP_FRACTION)
            high, edge = codes[at] & 1, _SHARE_ONE - share if steps[chunk] > 0 else _SHARE_ONE
            part, part_start = (_SHARE_ONE - edge, edge) if high else (edge, 0)
            bits, count = (gap - base[token]) << 1 | codes[at] >> 1, width[token] + 1
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
def decode_values(
    states, words, used, steps, share, lengths, kept, first, token_of_slot, frequency, start, base, width,
    k_row, spacing_column, context, positions, codes,
):  # fmt: skip
    """Read all values; whether no position left its chunk, and how many words they wanted. There is one word more in `words` than there are.

    What cannot be foretold (a high magnitude, a state that takes a word) is computed without a branch.
    """
    lanes, chunks, last = len(states), len(first), len(words) - 1
    chunk_of, at_of, edge = np.arange(lanes) - lanes, np.zeros(lanes, np.int64), np.zeros(lanes, np.int64)
    room, left = np.zeros(lanes, np.int64), np.zeros(lanes, np.int64)
    to_read = len(positions)
    while to_read > 0:
        for lane in range(lanes):
            if left[lane] == 0:
                chunk = chunk_of[lane] + lanes
                if chunk >= chunks:
                    continue
                chunk_of[lane], at_of[lane] = chunk, first[chunk]
                room[lane], left[lane] = lengths[chunk], kept[chunk]
                edge[lane] = _SHARE_ONE - share if steps[chunk] > 0 else _SHARE_ONE
            to_read -= 1
            state, k, at = states[lane], left[lane], at_of[lane]
            row, slot = context[k_row[k] + spacing_column[np.uint32(room[lane]) // np.uint32(k)]], state & (TOTAL - 1)
            token = np.int64(token_of_slot[row, slot])
            state = frequency[row, token] * (state >> FREQUENCY_BITS) + slot - start[row, token]
            bits = state & ((2 << width[token]) - 1)
            state >>= width[token] + 1
            room[lane] -= base[token] + (bits >> 1) + 1
            left[lane], at_of[lane] = k - 1, at + 1
            if room[lane] < k - 1:
                return False, used
            part, bar = state & (_SHARE_ONE - 1), edge[lane]
            high = np.int64(part >= bar)
            state = (bar + high * (_SHARE_ONE - 2 * bar)) * (state >> SHARE_BITS) + part - high * bar
            short = state < LOWEST
            state = state << WORD_BITS | np.int64(words[min(used, last)]) if short else state
            used += short
            states[lane] = state
            positions[at] = lengths[chunk_of[lane]] - room[lane] - 1
            codes[at] = high | (bits & 1) << 1
    return True, used
