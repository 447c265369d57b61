"""Small whole numbers to a token of few bits and the rest of their bits, as a floating point number is written: exact, and monotone.

With `fraction` bits f, the tokens below 2^f are the numbers themselves. Token t ≥ 2^f stands for the 2^e numbers from (2^f + t mod 2^f)·2^e
on, e = t // 2^f - 1; which of them it is, e further bits tell. Scales are the first numbers of tokens; gaps are token and rest.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrain.sparseloco.delta import UNITS_BITS

Ints = NDArray[np.int64]

LEVEL_FRACTION: Final = 4
"""Scales have five significant bits: at most 3 % off, which adds 0.0003 to a relative error of the values of 0.002 to 0.01."""

LEVELS: Final = (UNITS_BITS - LEVEL_FRACTION + 1) << LEVEL_FRACTION
"""Levels are 0 … LEVELS - 1; the last is 31·2^35 units, below 16."""


def tokens(numbers: Ints, fraction: int) -> Ints:
    """The token of each number (0 ≤ number < 2^53)."""
    exponent: Ints = np.maximum(np.frexp(numbers.astype(np.float64))[1].astype(np.int64) - 1 - fraction, 0)
    found: Ints = (exponent << fraction) + (numbers >> exponent)
    return found


def bases(these: Ints, fraction: int) -> Ints:
    """The first number of each token."""
    exponent = widths(these, fraction)
    found: Ints = np.where(these < 1 << fraction, these, ((these & ((1 << fraction) - 1)) + (1 << fraction)) << exponent)
    return found


def widths(these: Ints, fraction: int) -> Ints:
    """How many further bits each token has."""
    found: Ints = np.maximum((these >> fraction) - 1, 0)
    return found


LEVEL_UNITS: Final = bases(np.arange(LEVELS), LEVEL_FRACTION)
"""The units of every level: strictly increasing, 0 at level 0."""


def nearest_levels(units: Ints) -> Ints:
    """The level nearest to each number of units (0 ≤ units), ties to the higher one."""
    below = np.minimum(tokens(units, LEVEL_FRACTION), LEVELS - 1)
    above = np.minimum(below + 1, LEVELS - 1)
    return np.where(2 * units >= LEVEL_UNITS[below] + LEVEL_UNITS[above], above, below)
