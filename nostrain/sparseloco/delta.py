"""The delta: a sparse pseudo-gradient in exact integers (design section 12, "Exact aggregation").

A value is m·2^e with a mantissa of at most 16 bits and EXPONENT_MIN ≤ e ≤ EXPONENT_MAX, so it is a whole number of *units* of 2^-36,
smaller than 2^40. Everything that must agree between machines is computed on these int64 units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

EXPONENT_MIN: Final = -36
"""The unit is 2^-36 ≈ 1.5e-11: far below one float32 step of any weight that matters."""

EXPONENT_MAX: Final = -12
"""The largest value is (2^16 - 1)·2^-12 < 16."""

UNIT: Final = 2.0**EXPONENT_MIN
MANTISSA_BITS: Final = 16


@dataclass(frozen=True, slots=True)
class Delta:
    """`indices` (int64, strictly increasing, into the flat vector of `size` values) and `units` (int64): value = units · 2^-36, exactly.

    Every value is a 16-bit mantissa times a power of two, so it is exact in float32 too.
    """

    indices: NDArray[np.int64]
    units: NDArray[np.int64]
    size: int

    def values(self) -> NDArray[np.float32]:
        """The values at `indices` as float32, without rounding."""
        return (self.units.astype(np.float64) * UNIT).astype(np.float32)

    def dense(self) -> NDArray[np.float32]:
        """The flat vector of `size` float32 values, zero where nothing was sent."""
        out = np.zeros(self.size, np.float32)
        out[self.indices] = self.values()
        return out

    def support(self) -> NDArray[np.int64]:
        """The indices of the values that are not zero."""
        found: NDArray[np.int64] = self.indices[self.units != 0]
        return found
