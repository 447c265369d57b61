"""The outer step, exact: θ' = θ - (α/R) · Σ c_i·Δ_i in integers, one rounding to float32, one subtraction (design section 12).

All sums are of int64, so neither order nor machine matters. The bounds: a delta's value is below 2^40 units of 2^-36; a step weight
w_i = floor(c_i · α / R) is in units of 2^-16; Σ w_i ≤ 2^22 is checked, so every sum stays below 2^62 units of 2^-52.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.protocol.manifest import OuterSpec
from nostrain.sparseloco.compiled import kernels_for
from nostrain.sparseloco.delta import UNIT_EXPONENT, Delta
from nostrain.units import PPM

WEIGHT_ONE: Final = 1 << 16
"""Weights are integers of 1/65536."""

_WEIGHT_SUM_MAX: Final = 1 << 22
_STEP_UNIT: Final = np.float32(2.0 ** (UNIT_EXPONENT - 16))
_SMALLEST_NORMAL: Final = np.float32(2.0**-126)
_HALF_BITS: Final = 20
_BLOCK: Final = 1 << 20
_STEP_BLOCK: Final = 1 << 16


def squared_norm(delta: Delta, *, compiled: bool | None = None) -> int:
    """‖Δ‖² in units of 2^-72, exactly: values are split in halves of 20 bits, so a block of 2^20 squares stays below 2^61.

    `compiled` as in `codec.encode`.
    """
    if (kernels := kernels_for(delta.size, compiled)) is not None:
        return int(kernels.squared_norm(delta))
    total = 0
    for at in range(0, len(delta.units), _BLOCK):
        units = np.abs(delta.units[at : at + _BLOCK])
        high, low = units >> _HALF_BITS, units & ((1 << _HALF_BITS) - 1)
        squares = (int((high * high).sum()) << _HALF_BITS) + (int((high * low).sum()) << 1)
        total += (squares << _HALF_BITS) + int((low * low).sum())
    return total


def cap_weights(deltas: Sequence[Delta]) -> list[int]:
    """The norm cap c_i = min(1, median‖Δ‖ / ‖Δ_i‖) of each delta in 1/65536, rounded down, by integer square root.

    The median of an even number is the mean of the middle two. A delta of norm zero has no part in the median: it must not scale others down.
    """
    norms = [math.isqrt(squared_norm(delta)) for delta in deltas]
    ranked = sorted(norm for norm in norms if norm)
    if not ranked:
        return [WEIGHT_ONE] * len(norms)
    twice_median = ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]
    return [min(WEIGHT_ONE, twice_median * WEIGHT_ONE // (2 * norm)) if norm else WEIGHT_ONE for norm in norms]


def step_weights(caps: Sequence[int], outer: OuterSpec, committed: int) -> list[int]:
    """w_i = floor(c_i · α / R) in 1/65536 for each cap c_i; `committed` is R, the number of pinned commitments.

    Raises:
        LocalProtocolError: R < 1 or below the number of deltas, α is negative, or the weights are so large that sums could overflow.
    """
    if committed < max(1, len(caps)) or outer.alpha_ppm < 0:
        raise LocalProtocolError(f"outer step: {len(caps)} deltas of {committed} commitments, alpha {outer.alpha_ppm} ppm")
    weights = [cap * outer.alpha_ppm // (committed * PPM) for cap in caps]
    if sum(weights) > _WEIGHT_SUM_MAX:
        raise LocalProtocolError(f"outer step: alpha of {outer.alpha_ppm} ppm over {committed} is too large")
    return weights


def sparse_step(flat: NDArray[np.float32], delta: Delta, weight: int) -> NDArray[np.float32]:
    """What `outer_step` would leave at `delta.indices` if this delta were the only one; `flat` is not changed."""
    after = flat[delta.indices]
    _finish(after, delta.units * weight, _STEP_UNIT, _SMALLEST_NORMAL, after)
    return after


def outer_step(
    flat: NDArray[np.float32],
    deltas: Sequence[Delta],
    weights: Sequence[int],
    *,
    out: NDArray[np.float32] | None = None,
    compiled: bool | None = None,
) -> NDArray[np.float32]:
    """The next flat vector: `flat` less the weighted sum of `deltas` (step weights in 1/65536); subnormals and -0 become +0.

    It is written to `out` (which may be `flat`), or to new memory; beside it, only one block of sums is held at a time. The result does
    not depend on the order of the deltas. `compiled` as in `codec.encode`; the results are equal.

    Raises:
        LocalProtocolError: numba was asked for and is missing.
    """
    after = np.empty_like(flat) if out is None else out
    kernels = kernels_for(len(flat), compiled)
    add, finish = (_add, _finish) if kernels is None else (kernels.add_weighted, kernels.finish_step)
    edges = np.arange(0, len(flat) + _STEP_BLOCK, _STEP_BLOCK)
    cuts = [np.searchsorted(delta.indices, edges.astype(delta.indices.dtype)) for delta in deltas]
    totals = np.empty(_STEP_BLOCK, np.int64)
    for block, begin in enumerate(edges[:-1]):
        part = slice(begin, min(begin + _STEP_BLOCK, len(flat)))
        total = totals[: part.stop - begin]
        total[:] = 0
        for delta, weight, cut in zip(deltas, weights, cuts, strict=True):
            mine = slice(cut[block], cut[block + 1])
            add(total, delta.indices[mine], delta.units[mine], weight, begin)
        finish(flat[part], total, _STEP_UNIT, _SMALLEST_NORMAL, after[part])
    return after


def _add(total: NDArray[np.int64], indices: NDArray[np.signedinteger[Any]], units: NDArray[np.int64], weight: int, begin: int) -> None:
    total[indices - begin] += units * weight


def _finish(flat: NDArray[np.float32], total: NDArray[np.int64], unit: np.float32, least: np.float32, out: NDArray[np.float32]) -> None:
    """flat - total · unit, magnitudes under `least` as +0. The product is exact: `unit` is a power of two."""
    np.subtract(flat, total.astype(np.float32) * unit, out=out)
    out[np.abs(out) < least] = 0


def canonical_zero(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of `flat` with subnormals and -0 as +0: the form of every checkpoint."""
    return np.where(np.abs(flat) < _SMALLEST_NORMAL, np.float32(0), flat)
