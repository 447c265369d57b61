"""How many windows are trained on at once: what the machine has room for, and half of it after each time that it had not."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

from nostrain.protocol.footprint import largest_micro_batch
from nostrain.protocol.manifest import ModelSpec, TrainingSpec


@dataclass(slots=True)
class MicroBatch:
    """What one engine process has learned about its memory: kept from job to job, forgotten with the process.

    `chosen` is its owner's choice (0: none), `memory` what it may use in bytes (0: unknown).
    """

    chosen: int = 0
    memory: int = 0
    checkpointing: bool = False
    _learned: int = field(default=0, init=False)

    def size(self, model: ModelSpec, training: TrainingSpec) -> int:
        """Windows at once: at most the batch, at least one."""
        most = min(size for size in (training.batch_size, self.chosen, self._learned) if size)
        if not self.memory:
            return most
        return min(most, largest_micro_batch(model, training, self.memory, checkpointing=self.checkpointing) or 1)

    def halve(self, size: int) -> bool:
        """Memory was too little for `size` windows: take half of them from now on. False when it was one already."""
        if size <= 1:
            return False
        self._learned = size // 2
        print(f"engine: out of memory with {size} windows at once; going on with {self._learned}", file=sys.stderr)
        return True
