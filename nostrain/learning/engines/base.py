"""What an engine is: a model over one flat float32 vector that can be trained and measured. No framework is imported here.

Everything else of the engine process (data, windows, codec, scores, outer step) is numpy, and the same whichever engine runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from nostrain.protocol.engines import Device, EngineKind, Precision
from nostrain.protocol.manifest import ModelSpec, TrainingSpec

Flat = NDArray[np.float32]
"""Every parameter of a model, the tensors of `protocol.tensors.model_tensors` one after the other: [size]."""

Windows = NDArray[np.int64]
"""Tokens: [windows, n + 1]; inputs and, one further, targets."""


THREADS_VARIABLE: Final = "NOSTRAIN_ENGINE_THREADS"
"""The environment variable with the number of threads of an engine process."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What the owner of the machine chose: settings of the engine process. What is trained does not depend on them, rounding apart.

    `precision` `auto` is bfloat16 where the device gains by it. `micro_batch`: windows at once, of which a batch is made by adding up gradients; 0: the
    whole batch. `checkpointing`: activations are computed twice instead of kept. `compile`: the framework compiles the model for the device.
    `memory_mb`: what training may use, in MiB; 0: unknown, then the whole batch is tried.
    """

    kind: EngineKind = "pytorch"
    device: Device = "cpu"
    precision: Precision = "auto"
    micro_batch: int = 0
    checkpointing: bool = False
    compile: bool = False
    memory_mb: int = 0


DEFAULT_OPTIONS: Final = EngineOptions()


@dataclass(slots=True)
class Moments:
    """What an optimizer keeps between rounds: AdamW's moments (flat float32 [size] each) and the number of steps that led to them.

    They are kept because starting AdamW afresh every round cost 0.3 to 0.5 bits a byte after 8 rounds of 30 steps.
    """

    first: Flat
    second: Flat
    steps: int

    @classmethod
    def fresh(cls, size: int) -> Moments:
        """The moments of a worker before its first round."""
        return cls(np.zeros(size, np.float32), np.zeros(size, np.float32), 0)


class Model(Protocol):
    """A model at one point of its training, wherever its memory is."""

    def read(self) -> Flat:
        """The parameters; a copy or a view, which the next call of another method may change."""

    def inner_steps(self, windows: Windows, training: TrainingSpec, steps_done: int, moments: Moments, micro_batch: int = 0) -> list[float]:
        """AdamW on `windows` [H · batch, n + 1], in order; the parameters and `moments` are changed in place.

        `micro_batch` windows are computed at once, and their gradients added up to the batch's (0: all of them).

        Returns the loss (nats a token) of every step. Deterministic on one machine with one number of threads.

        Raises:
            LocalProtocolError: a loss is not finite.
            MemoryError: the device has too little memory; model and `moments` are then of no further use.
        """

    def window_losses(self, windows: Windows, batch: int) -> NDArray[np.float64]:
        """Mean loss a token of every window: float32 cross-entropy, summed in float64.

        Every forward pass has exactly `batch` windows (the last one repeats a window): kernels differ between shapes.
        """

    def write(self, flat: Flat) -> None:
        """Replace every parameter by the values `flat` [size], which are copied."""

    def replace(self, indices: NDArray[np.signedinteger[Any]], values: Flat) -> Flat:
        """Write `values` at `indices` (increasing) and return what was there: replacing it again restores every bit."""


class Engine(Protocol):
    """One framework."""

    @property
    def kind(self) -> EngineKind:
        """Its name in the configuration."""

    @property
    def version(self) -> str:
        """Framework and version, for people."""

    def open_model(self, spec: ModelSpec, flat: Flat, options: EngineOptions) -> Model:
        """The model of `spec` with the values `flat` (copied) on the device of `options`.

        Raises:
            LocalProtocolError: `flat` is not of this model, or the model cannot be built.
            ConfigError: there is no such device.
        """


def learning_rate(training: TrainingSpec, step: int) -> float:
    """Linear warm-up over `warmup_steps` inner steps of the run, then constant."""
    return training.learning_rate_ppb / 1e9 * min(1.0, (step + 1) / max(1, training.warmup_steps))


ADAM_EPSILON = 1e-8
"""AdamW's epsilon, in every engine."""
