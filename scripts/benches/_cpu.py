"""Processor time of this process and of its children that still run (Linux), to nanoseconds: what a crowded machine does not change much."""

from __future__ import annotations

import time
from pathlib import Path

_PROCESS = 2
"""`CPUCLOCK_SCHED` of the kernel: with a process id, the clock of all of its threads (clock_getcpuclockid(3))."""


def children() -> list[int]:
    """Process ids."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def of_children() -> float:
    """Seconds that the children have computed. One that ends meanwhile counts nothing."""
    total = 0.0
    for pid in children():
        try:
            total += time.clock_gettime(~pid << 3 | _PROCESS)
        except OSError:
            continue
    return total
