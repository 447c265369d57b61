"""How many windows are computed at once: what the machine has room for, and half of it after each time that it had not."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from nostrain.protocol.footprint import largest_micro_batch
from nostrain.protocol.manifest import ModelSpec, TrainingSpec

Made = TypeVar("Made")


@dataclass(slots=True)
class Learned:
    """What one engine process has learned about its memory: kept from job to job, forgotten with the process.

    `memory` is what it may use in bytes (0: unknown).
    """

    memory: int = 0
    _learned: int = field(default=0, init=False)

    def attempt(self, size: Callable[[], int], compute: Callable[[int], Made]) -> Made:
        """What `compute` makes of `size()` windows at once. When memory is too little, it begins again with half as many, and so does every later job.

        Raises:
            MemoryError: there is too little even for one window.
        """
        while True:
            windows = size()
            try:
                return compute(windows)
            except MemoryError:
                if windows <= 1:
                    raise
            self._learned = windows // 2
            print(f"engine: out of memory with {windows} windows at once; going on with {self._learned}", file=sys.stderr)
            gc.collect()  # the model that failed is in reference cycles with itself, and has to be gone before there is another


@dataclass(slots=True)
class MicroBatch(Learned):
    """Of training. `chosen` is its owner's choice (0: none)."""

    chosen: int = 0
    checkpointing: bool = False

    def size(self, model: ModelSpec, training: TrainingSpec) -> int:
        """Windows at once: at most the batch, at least one."""
        most = min(size for size in (training.batch_size, self.chosen, self._learned) if size)
        if not self.memory:
            return most
        return min(most, largest_micro_batch(model, training, self.memory, checkpointing=self.checkpointing) or 1)


@dataclass(slots=True)
class EvaluationBatch(Learned):
    """Of evaluation. All passes of one job are of one shape: the batch's, or its half, a quarter …: kernels differ between shapes."""

    def size(self, batch: int, needed: Callable[[int], int]) -> int:
        """Windows a pass; `needed` says how many bytes so many take."""
        windows = min(batch, self._learned or batch)
        while self.memory and windows > 1 and needed(windows) > self.memory:
            windows //= 2
        return windows
