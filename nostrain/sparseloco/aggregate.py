"""The outer step, exact: θ' = θ - α/d · Σ c_i·Δ_i in integers, one rounding to float32, one subtraction (design section 12).

All sums are of int64, so neither order nor machine nor threads matter. The bounds: a delta's value is below 2^40 units of 2^-36; a weight
w_i = floor(c_i · α / d) is in units of 2^-16; Σ w_i ≤ 2^22 is checked (`rules.plan_step`), so every sum stays below 2^62 units of 2^-52.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nostrain.sparseloco.compiled import kernels_for
from nostrain.sparseloco.delta import UNIT_EXPONENT, Delta
from nostrain.sparseloco.layout import Span, spans
from nostrain.sparseloco.rules import WEIGHT_ONE, Part, Step, add_by_rule
from nostrain.sparseloco.stack import Stack

_STEP_UNIT: Final = np.float32(2.0 ** (UNIT_EXPONENT - 16))
_SMALLEST_NORMAL: Final = np.float32(2.0**-126)
_HALF_BITS: Final = 20
_BLOCK: Final = 1 << 20
_STEP_BLOCK: Final = 1 << 16
_SPAN: Final = 16 * _STEP_BLOCK


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
    """The norm caps of deltas that are not in a stack: `caps_of` their squared norms."""
    return caps_of([squared_norm(delta) for delta in deltas])


def caps_of(squared_norms: Sequence[int]) -> list[int]:
    """The norm cap c_i = min(1, median‖Δ‖ / ‖Δ_i‖) of each delta in 1/65536, rounded down, by integer square root.

    The median of an even number is the mean of the middle two. A delta of norm zero has no part in the median: it must not scale others down.
    """
    norms = [math.isqrt(square) for square in squared_norms]
    ranked = sorted(norm for norm in norms if norm)
    if not ranked:
        return [WEIGHT_ONE] * len(norms)
    twice_median = ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]
    return [min(WEIGHT_ONE, twice_median * WEIGHT_ONE // (2 * norm)) if norm else WEIGHT_ONE for norm in norms]


def sparse_step(flat: NDArray[np.float32], delta: Delta, weight: int) -> NDArray[np.float32]:
    """What `outer_step` would leave at `delta.indices` if this delta were the only one; `flat` is not changed."""
    after = flat[delta.indices]
    _finish(after, delta.units * weight, _STEP_UNIT, _SMALLEST_NORMAL, after)
    return after


def outer_step(
    flat: NDArray[np.float32],
    deltas: Sequence[Delta] | Stack,
    step: Step,
    *,
    out: NDArray[np.float32] | None = None,
    compiled: bool | None = None,
    threads: int = 1,
) -> NDArray[np.float32]:
    """The next flat vector: `flat` less what `step` makes of `deltas`; subnormals and -0 become +0.

    It is written to `out` (which may be `flat`), or to new memory; beside it, each thread holds only one block of sums. The result depends
    neither on the order of the deltas nor on `threads`. `compiled` as in `codec.encode`, for deltas that are not in a stack; the results are equal.

    Raises:
        LocalProtocolError: numba was asked for and is missing.
    """
    after = np.empty_like(flat) if out is None else out
    work = _work(flat, deltas, step, compiled)
    if threads == 1:
        for span in work.spans():
            work.write(span, after[span])
        return after
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda span: work.write(span, after[span]), work.spans()):
            pass
    return after


def step_blocks(
    flat: NDArray[np.float32], deltas: Sequence[Delta] | Stack, step: Step, *, compiled: bool | None = None, threads: int = 1
) -> Iterator[NDArray[np.float32]]:
    """The same vector in consecutive parts of at most 4 MiB (or a row of tiles), computed while the earlier ones are used: for a `flat` that is
    memory-mapped.

    Raises:
        LocalProtocolError: as `outer_step`.
    """
    work = _work(flat, deltas, step, compiled)

    def computed(span: slice) -> NDArray[np.float32]:
        part = np.empty(span.stop - span.start, np.float32)
        work.write(span, part)
        return part

    with ThreadPoolExecutor(threads) as pool:
        ahead: deque[Future[NDArray[np.float32]]] = deque()
        for span in work.spans():
            ahead.append(pool.submit(computed, span))
            if len(ahead) > threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _work(flat: NDArray[np.float32], deltas: Sequence[Delta] | Stack, step: Step, compiled: bool | None) -> _SortedWork | _StackWork:
    return _StackWork(flat, deltas, step) if isinstance(deltas, Stack) else _SortedWork(flat, deltas, step, compiled)


class _SortedWork:
    """An outer step cut into spans that can be computed in any order, and these into blocks, whose sums stay in a processor's cache."""

    def __init__(self, flat: NDArray[np.float32], deltas: Sequence[Delta], step: Step, compiled: bool | None) -> None:
        self._flat, self._deltas, self._step = flat, deltas, step
        self._sum = _Sums(step, kernels_for(len(flat), compiled))
        edges = np.arange(0, len(flat) + _STEP_BLOCK, _STEP_BLOCK)
        self._cuts = [np.searchsorted(delta.indices, edges.astype(delta.indices.dtype)) for delta in deltas]

    def spans(self) -> Iterator[slice]:
        """The spans, in order."""
        size = len(self._flat)
        return (slice(begin, min(begin + _SPAN, size)) for begin in range(0, size, _SPAN))

    def write(self, span: slice, out: NDArray[np.float32]) -> None:
        """Compute `span` of the next flat vector into `out`, which may be the same memory."""
        for begin in range(span.start, span.stop, _STEP_BLOCK):
            end = min(begin + _STEP_BLOCK, span.stop)
            self._sum.apply(self._flat[begin:end], self._parts(begin), begin, out[begin - span.start : end - span.start])

    def _parts(self, begin: int) -> list[Part]:
        at = begin // _STEP_BLOCK
        mine = [slice(cut[at], cut[at + 1]) for cut in self._cuts]
        return [(delta.indices[part], delta.units[part]) for delta, part in zip(self._deltas, mine, strict=True)]


class _StackWork:
    """The same over a stack: spans are whole chunks. Where every value counts and numba is there, a tile is done at a time."""

    def __init__(self, flat: NDArray[np.float32], stack: Stack, step: Step) -> None:
        self._flat, self._stack = flat, stack
        self._weights = np.ascontiguousarray(step.table[-1])
        self._kernels = stack.kernels if step.uniform else None
        self._sum = _Sums(step, stack.kernels)
        self._spans: dict[int, list[Span]] = {}
        begin = 0
        for span in spans(stack.layout, _STEP_BLOCK):
            if span.end - begin > _SPAN:
                begin = span.begin
            self._spans.setdefault(begin, []).append(span)

    def spans(self) -> Iterator[slice]:
        """As `_SortedWork.spans`."""
        return (slice(begin, group[-1].end) for begin, group in self._spans.items())

    def write(self, span: slice, out: NDArray[np.float32]) -> None:
        """As `_SortedWork.write`."""
        if self._kernels is not None:
            stack = self._stack
            self._kernels.step_spans(
                self._flat, self._spans[span.start], stack.layout, stack.places, stack.magnitudes, self._weights,
                _STEP_UNIT, _SMALLEST_NORMAL, out,
            )  # fmt: skip
            return
        for part in self._spans[span.start]:
            before, after = self._flat[part.begin : part.end], out[part.begin - span.start : part.end - span.start]
            self._sum.apply(before, self._stack.parts(part), part.begin, after)


class _Sums:
    """The sums of a block of the flat vector, and what becomes of them."""

    def __init__(self, step: Step, kernels: ModuleType | None) -> None:
        self._step = step
        self._add: Callable[..., None] = _add if kernels is None else kernels.add_weighted
        self._add_by_rule: Callable[..., None] = add_by_rule if kernels is None else kernels.add_by_rule
        self._finish: Callable[..., None] = _finish if kernels is None else kernels.finish_step

    def apply(self, flat: NDArray[np.float32], parts: Sequence[Part], begin: int, out: NDArray[np.float32]) -> None:
        """Write to `out`, which may be `flat`, the block `flat`, which begins at `begin`, after the step."""
        total = np.zeros(len(flat), np.int64)
        if self._step.uniform:
            for weight, (indices, units) in zip(self._step.table[-1].tolist(), parts, strict=True):
                self._add(total, indices, units, weight, begin)
        else:
            self._add_by_rule(total, parts, self._step, begin)
        self._finish(flat, total, _STEP_UNIT, _SMALLEST_NORMAL, out)


def _add(total: NDArray[np.int64], indices: NDArray[np.signedinteger[Any]], units: NDArray[np.int64], weight: int, begin: int) -> None:
    total[indices - begin] += units * weight


def _finish(flat: NDArray[np.float32], total: NDArray[np.int64], unit: np.float32, least: np.float32, out: NDArray[np.float32]) -> None:
    """flat - total · unit, magnitudes under `least` as +0. The product is exact: `unit` is a power of two."""
    np.subtract(flat, total.astype(np.float32) * unit, out=out)
    out[np.abs(out) < least] = 0


def canonical_zero(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy of `flat` with subnormals and -0 as +0: the form of every checkpoint."""
    return np.where(np.abs(flat) < _SMALLEST_NORMAL, np.float32(0), flat)
