"""The frequencies of the entropy coder: fixed by the protocol, computed in integers, never sent (docs/protocol.md, section 8).

*Gaps.* With k values still to come among n places, P(gap ≥ g) = C(n - g, k) / C(n, k) if every set of places is equally likely. The exact
chain of these would cost log2 C(4096, 64) / 64 = 7.364 bits an index whatever the set. Here n and k are rounded to *contexts* (one bit of
k after the leading one, two of the spacing n // k) and gaps to tokens: 7.37 bits, 0.02 more as every token has a frequency.

*Levels.* A step from one chunk's scale to the next is small and has a heavy tail: weight (z + 4)^-3, fitted to pseudo-gradients of our runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrain.sparseloco.minifloat import LEVELS, bases, tokens, widths

Ints = NDArray[np.int64]

FREQUENCY_BITS: Final = 12
TOTAL: Final = 1 << FREQUENCY_BITS
"""The frequencies of a context add up to this; each is at least 1."""

GAP_FRACTION: Final = 3
STEP_FRACTION: Final = 3
_KEPT_FRACTION: Final = 1
_SPACING_FRACTION: Final = 2
_ONE_BITS: Final = 40

FIELD_BITS: Final = 13
ROW_BITS: Final = 7
"""More tokens than 2^7 no chunk of at most 4096 places has."""
RECIPROCAL_BITS: Final = 24
"""n · ceil(2^24 / k) >> 24 is n // k for all n, k ≤ 4096: the excess is below n · k / 2^24 parts of 1 / k."""


@dataclass(frozen=True, slots=True)
class Table:
    """Contexts × tokens. `frequency`, `start`: int32 [contexts, tokens]; `token_of_slot`: uint8 [contexts, TOTAL]; `base`, `width`: int64 [tokens]."""

    frequency: NDArray[np.int32]
    start: NDArray[np.int32]
    token_of_slot: NDArray[np.uint8]
    base: Ints
    width: Ints


@dataclass(frozen=True, slots=True)
class GapTable:
    """The table of the gaps, and which context to use: `context[k_row[k] + spacing_column[n // k]]`; int32, indexed by k and n // k."""

    table: Table
    k_row: NDArray[np.int32]
    spacing_column: NDArray[np.int32]
    context: NDArray[np.int32]

    def contexts(self, places: Ints, left: Ints) -> Ints:
        """Row of the table for `left` values still to come among `places`."""
        found: Ints = self.context[self.k_row[left] + self.spacing_column[places // left]].astype(np.int64)
        return found


@dataclass(frozen=True, slots=True)
class GapReader:
    """The same tables as a decoder wants them. With k values still to come among n places, the row is
    `rows[offset[k] + (n * reciprocal[k] >> RECIPROCAL_BITS)]`, the token `token_of_slot[row * TOTAL + slot]` and what it means
    `entries[row * ROW + token]`: from the lowest bit, frequency, start and base (FIELD_BITS each), then one more than the width. int64, tokens uint8.
    """

    offset: Ints
    reciprocal: Ints
    rows: Ints
    token_of_slot: NDArray[np.uint8]
    entries: Ints


def _table(weights: Ints, one: int, fraction: int) -> Table:
    """Frequencies from `weights` [contexts, tokens], which add up to at most `one` in a row; what rounding leaves goes to the first largest."""
    contexts, count = weights.shape
    frequency = 1 + (TOTAL - count) * weights // one
    frequency[np.arange(contexts), frequency.argmax(axis=1)] += TOTAL - frequency.sum(axis=1)
    start = np.cumsum(frequency, axis=1) - frequency
    slots = np.repeat(np.tile(np.arange(count, dtype=np.uint8), contexts), frequency.ravel()).reshape(contexts, TOTAL)
    every = np.arange(count)
    return Table(frequency.astype(np.int32), start.astype(np.int32), slots, bases(every, fraction), widths(every, fraction))


@lru_cache(maxsize=8)
def gap_table(chunk: int, topk: int) -> GapTable:
    """The contexts that chunks of at most `chunk` places and `topk` values can need."""
    k_tokens, spacings = int(tokens(np.array([topk]), _KEPT_FRACTION)[0]) + 1, int(tokens(np.array([chunk]), _SPACING_FRACTION)[0]) + 1
    k_low, k_width = bases(np.arange(k_tokens), _KEPT_FRACTION), widths(np.arange(k_tokens), _KEPT_FRACTION)
    s_low, s_width = bases(np.arange(spacings), _SPACING_FRACTION), widths(np.arange(spacings), _SPACING_FRACTION)
    needed = (k_low[:, None] >= 1) & (s_low >= 1) & (k_low[:, None] * s_low <= chunk)
    k_of, s_of = np.nonzero(needed)
    left = k_low[k_of] + ((1 << k_width[k_of]) >> 1)
    places = (2 * s_low[s_of] + (1 << s_width[s_of])) * left // 2
    survivors = np.empty((len(left), chunk + 1), np.int64)
    survivors[:, 0] = 1 << _ONE_BITS
    for gap in range(chunk):
        survivors[:, gap + 1] = survivors[:, gap] * np.maximum(places - gap - left, 0) // np.maximum(places - gap, 1)
    count = int(tokens(np.array([chunk - 1]), GAP_FRACTION)[0]) + 1
    low = bases(np.arange(count), GAP_FRACTION)
    high = np.minimum(low + (1 << widths(np.arange(count), GAP_FRACTION)), chunk)
    context = np.zeros(k_tokens * spacings, np.int32)
    context[k_of * spacings + s_of] = np.arange(len(left))
    k_row = tokens(np.arange(topk + 1), _KEPT_FRACTION) * spacings
    columns = tokens(np.arange(chunk + 1), _SPACING_FRACTION)
    table = _table(survivors[:, low] - survivors[:, high], 1 << _ONE_BITS, GAP_FRACTION)
    return GapTable(table, k_row.astype(np.int32), columns.astype(np.int32), context)


@lru_cache(maxsize=8)
def gap_reader(chunk: int, topk: int) -> GapReader:
    """`gap_table` for decoders."""
    gaps, k = gap_table(chunk, topk), np.arange(1, topk + 1)
    table, spacings = gaps.table, chunk // k + 1
    entries = np.zeros((len(table.frequency), 1 << ROW_BITS), np.int64)
    fields = (table.frequency.astype(np.int64), table.start.astype(np.int64), table.base, table.width + 1)
    for at, field in enumerate(fields):
        entries[:, : len(table.base)] |= field << (at * FIELD_BITS)
    rows = [gaps.context[gaps.k_row[one] + gaps.spacing_column[:count]] for one, count in zip(k, spacings, strict=True)]
    return GapReader(
        offset=np.concatenate([[0], np.cumsum(spacings) - spacings]),
        reciprocal=np.concatenate([[0], -(-(1 << RECIPROCAL_BITS) // k)]),
        rows=np.concatenate(rows).astype(np.int64),
        token_of_slot=table.token_of_slot.ravel(),
        entries=entries.ravel(),
    )


@lru_cache(maxsize=1)
def step_table() -> Table:
    """One context: zigzag steps from level to level, and the distance of the high level from the low one."""
    every = np.arange(int(tokens(np.array([2 * LEVELS]), STEP_FRACTION)[0]) + 1)
    weights = ((1 << 24) << widths(every, STEP_FRACTION)) // (bases(every, STEP_FRACTION) + 4) ** 3
    return _table(weights[None], int(weights.sum()), STEP_FRACTION)
