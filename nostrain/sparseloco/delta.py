"""The delta: a sparse pseudo-gradient in exact integers (design section 12, "Exact aggregation").

A value is a whole number of *units* of 2^-36, smaller than 2^40 and of few significant bits (m·2^e, design section 12). Everything that
must agree between machines is computed on these int64 units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

UNIT_EXPONENT: Final = -36
"""The unit is 2^-36 ≈ 1.5e-11: far below one float32 step of any weight that matters."""

UNIT: Final = 2.0**UNIT_EXPONENT
UNITS_BITS: Final = 40
"""Values are below 2^40 units: below 16."""


Indices = NDArray[np.int32] | NDArray[np.int64]


def empty_indices(count: int, size: int) -> Indices:
    """Room for `count` indices below `size`: int32 where they fit, else int64."""
    return np.empty(count, np.int32) if size <= 1 << 31 else np.empty(count, np.int64)


@dataclass(frozen=True, slots=True)
class Delta:
    """`indices` (strictly increasing, into the flat vector of `size` values) and `units` (int64): value = units · 2^-36, exactly.

    `indices` are int32 where `size` allows it, else int64. Every value is exact in float32 too.
    """

    indices: Indices
    units: NDArray[np.int64]
    size: int

    def values(self, part: slice = slice(None)) -> NDArray[np.float32]:
        """The values at `indices`, or at a `part` of them, as float32, without rounding."""
        return (self.units[part].astype(np.float64) * UNIT).astype(np.float32)

    def dense(self) -> NDArray[np.float32]:
        """The flat vector of `size` float32 values, zero where nothing was sent."""
        out = np.zeros(self.size, np.float32)
        out[self.indices] = self.values()
        return out

    def support(self) -> Indices:
        """The indices of the values that are not zero."""
        found: Indices = self.indices[self.units != 0]
        return found
