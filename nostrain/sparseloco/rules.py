"""The rules of the outer step as integers: what divides a coordinate's sum, and which of its values count (docs/adr/0043).

Every rule is a table of whole weights, w_i(n) = floor(c_i · α / d(n)) in 1/65536, where n is how many deltas have a value (not zero) at the
coordinate: the divisor is inside of the weight, so the sum Σ w_i(n) · units_i stays whole, needs one rounding, and has no order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.protocol.manifest import RULE_PARAMETERS, OuterSpec
from nostrain.units import PPM

WEIGHT_ONE: Final = 1 << 16
"""Weights are integers of 1/65536."""

_WEIGHT_SUM_MAX: Final = 1 << 22
_ABSENT: Final = np.iinfo(np.int64).max

Part = tuple[NDArray[np.signedinteger[Any]], NDArray[np.int64]]
"""What one delta has in a block: indices into the flat vector, and units."""


@dataclass(frozen=True, slots=True)
class Step:
    """The weights of a deltas: `table` [a + 1, a] int64, row n for coordinates where n of them have a value.

    `uniform`: the rows are equal, every value counts. `agreement_ppm`: no step where |n₊ − n₋| is less than this share of n. `trim`: where
    n > 2 · trim, so many of the largest and of the smallest products of weight and value do not count.
    """

    table: NDArray[np.int64]
    uniform: bool
    agreement_ppm: int = 0
    trim: int = 0


def plan_step(caps: Sequence[int], outer: OuterSpec, committed: int) -> Step:
    """The step of deltas with the norm caps c_i `caps`; `committed` is R, the number of pinned commitments.

    Raises:
        LocalProtocolError: R < 1 or below the number of deltas, α is negative, the rule's parameter is out of range, or the weights are so
            large that sums could overflow: nowhere may those that count together exceed 2^22 (with α ≤ 64 they never do).
    """
    if committed < max(1, len(caps)) or outer.alpha_ppm < 0:
        raise LocalProtocolError(f"outer step: {len(caps)} deltas of {committed} commitments, alpha {outer.alpha_ppm} ppm")
    least, most = RULE_PARAMETERS[outer.rule]
    if not least <= outer.parameter <= most:
        raise LocalProtocolError(f"outer step: the parameter of {outer.rule} is {outer.parameter}, outside of {least} to {most}")
    rows = [[0] * len(caps)]
    for count in range(1, len(caps) + 1):
        divisor = _divisor(outer, count, committed)
        rows.append([cap * outer.alpha_ppm // (divisor * PPM) for cap in caps])
        counted = count - 2 * outer.parameter if outer.rule == "trim" and count > 2 * outer.parameter else count
        if sum(sorted(rows[-1])[-counted:]) > _WEIGHT_SUM_MAX:
            raise LocalProtocolError(f"outer step: alpha of {outer.alpha_ppm} ppm over {divisor} is too large")
    return Step(
        table=np.array(rows, np.int64).reshape(len(rows), len(caps)),
        uniform=outer.rule == "mean_r",
        agreement_ppm=outer.parameter if outer.rule == "sign" else 0,
        trim=outer.parameter if outer.rule == "trim" else 0,
    )


def lone_weight(cap: int, outer: OuterSpec, committed: int) -> int:
    """The weight of a delta wherever no other has a value: what it is scored with. Raises as `plan_step`."""
    return int(plan_step([cap], outer, committed).table[1, 0])


def _divisor(outer: OuterSpec, count: int, committed: int) -> int:
    """What α is divided by where `count` deltas have a value."""
    match outer.rule:
        case "mean_contributors":
            return count
        case "shrink":
            return count + outer.parameter
        case "trim":
            return count - 2 * outer.parameter if count > 2 * outer.parameter else count
        case _:
            return committed


def add_by_rule(total: NDArray[np.int64], parts: Sequence[Part], step: Step, begin: int) -> None:
    """Add to `total`, the zeros of the block that begins at `begin`, the products of `parts`, one a delta, as `step` says."""
    counts, balance = np.zeros_like(total), np.zeros_like(total)
    for indices, units in parts:
        counts[indices - begin] += units != 0
        balance[indices - begin] += np.sign(units)
    for weights, (indices, units) in zip(step.table.T, parts, strict=True):
        total[indices - begin] += units * weights[counts[indices - begin]]
    if step.agreement_ppm:
        total[np.abs(balance) * PPM < counts * step.agreement_ppm] = 0
    if step.trim:
        _trim(total, parts, counts, step, begin)


def _trim(total: NDArray[np.int64], parts: Sequence[Part], counts: NDArray[np.int64], step: Step, begin: int) -> None:
    """Set the sums anew, without the outermost products, wherever there are more than 2 · trim. Equal products are interchangeable."""
    at = np.flatnonzero(counts > 2 * step.trim)
    products = np.full((len(parts), len(total)), _ABSENT)
    for row, weights, (indices, units) in zip(products, step.table.T, parts, strict=True):
        mine, here = units[units != 0], indices[units != 0] - begin
        row[here] = mine * weights[counts[here]]
    ranked, place = np.sort(products[:, at], axis=0), np.arange(len(parts))[:, None]
    left = (place >= step.trim) & (place < counts[at] - step.trim)
    total[at] = np.where(left, ranked, 0).sum(axis=0)
