"""Time several ways of doing the same, interleaved, so that a noisy machine is noisy to all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def side_by_side(
    ways: Mapping[str, Callable[[], object]], *, rounds: int, units: int, unit: str, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Warm every way up once, then time them in turn; print median seconds, units a second, and the ratio to the first.

    For one thread on a machine that others use too, `clock` is better `time.process_time`: seconds of a core.
    """
    for way in ways.values():
        way()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = clock()
            way()
            times[name].append(clock() - begin)
    first = statistics.median(next(iter(times.values())))
    for name, taken in times.items():
        middle = statistics.median(taken)
        spread = f"{min(taken) * 1e3:.1f}–{max(taken) * 1e3:.1f} ms"
        print(f"{name:<44} {middle * 1e3:9.1f} ms  ({spread})  {units / middle:12,.0f} {unit}/s   ×{middle / first:.2f}")
