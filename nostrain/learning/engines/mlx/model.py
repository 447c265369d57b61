"""The model over one flat vector in memory that mlx and numpy share: on a Mac the GPU's too (unified memory)."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.learning.engines.base import Flat, Windows, WorkerState, learning_rate
from nostrain.learning.engines.mlx.adamw import Trajectory, clipped
from nostrain.learning.engines.mlx.memory import memory_errors
from nostrain.learning.engines.mlx.network import Network
from nostrain.protocol.manifest import ModelSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.layout import tensor_sizes
from nostrain.units import PPM


class MlxModel:
    """`base.Model`. `_shared` is numpy's view of the memory of `_flat`, for writing by index; nothing is computed while it is written."""

    def __init__(self, spec: ModelSpec, flat: Flat, *, checkpointing: bool = False) -> None:
        """The model of `spec` with the values `flat` (copied); `checkpointing` as `base.EngineOptions`.

        Raises:
            LocalProtocolError: `flat` is not of this model.
        """
        self.network, self._tensors = Network(spec, checkpointing=checkpointing), model_tensors(spec)
        self._sizes = tensor_sizes(self._tensors)
        if flat.shape != (sum(self._sizes),):
            raise LocalProtocolError(f"{len(flat)} parameters are not those of the model: it has {sum(self._sizes)}")
        self._flat = mx.array(flat)
        mx.eval(self._flat)
        self._shared: Flat = np.array(self._flat, copy=False)
        self._slope = mx.value_and_grad(self._share_of_loss)

    def read(self) -> Flat:
        """As `base.Model.read`: a view."""
        return self._shared

    def inner_steps(
        self, windows: Windows, training: TrainingSpec, steps_done: int, state: WorkerState, micro_batch: int = 0
    ) -> list[float]:
        """As `base.Model.inner_steps`."""
        with memory_errors():
            return self._inner_steps(windows, training, steps_done, state, micro_batch)

    def _inner_steps(self, windows: Windows, training: TrainingSpec, steps_done: int, state: WorkerState, micro_batch: int) -> list[float]:
        at = Trajectory(self._flat, mx.array(state.first_moment), mx.array(state.second_moment), state.steps)
        losses: list[float] = []
        for step, begin in enumerate(range(0, len(windows), training.batch_size)):
            loss, gradients = self._accumulated(at.flat, windows[begin : begin + training.batch_size], micro_batch)
            at.step(clipped(gradients, training.clip_ppm / PPM), training, learning_rate(training, steps_done + step))
            del gradients
            mx.eval(at.flat, at.first, at.second)
            losses.append(loss)
        if not np.isfinite(losses).all():
            raise LocalProtocolError("training diverged: a loss is not finite")
        self._shared[:] = np.array(at.flat, copy=False)
        state.first_moment, state.second_moment, state.steps = np.array(at.first), np.array(at.second), at.steps
        return losses

    def _accumulated(self, flat: mx.array, batch: Windows, micro_batch: int) -> tuple[float, list[mx.array]]:
        """Mean loss of the batch and its gradient by tensor, computed `micro_batch` windows at a time: the activations of one part are gone before the next."""
        total, sums = 0.0, list[mx.array]()
        size = micro_batch or len(batch)
        for begin in range(0, len(batch), size):
            part = batch[begin : begin + size]
            loss, gradients = self._slope(self._parts(flat), mx.array(part), len(part) / len(batch))
            sums = [before + more for before, more in zip(sums, gradients, strict=True)] if sums else gradients
            mx.eval(loss, sums)
            total += cast("float", loss.item())
        return total, sums

    def window_losses(self, windows: Windows, batch: int) -> NDArray[np.float64]:
        """As `base.Model.window_losses`."""
        missing = -len(windows) % batch
        padded = mx.array(np.concatenate([windows, np.repeat(windows[-1:], missing, axis=0)]))
        named = self.tensors()
        means = []
        with memory_errors():
            for begin in range(0, len(padded), batch):
                losses = np.array(self.network.token_losses(named, padded[begin : begin + batch]))
                means.append(losses.mean(axis=1, dtype=np.float64))
        return np.concatenate(means)[: len(windows)]

    def write(self, flat: Flat) -> None:
        """As `base.Model.write`."""
        self._shared[:] = flat

    def replace(self, indices: NDArray[np.signedinteger[Any]], values: Flat) -> Flat:
        """As `base.Model.replace`."""
        kept: Flat = self._shared[indices]
        self._shared[indices] = values
        return kept

    def tensors(self) -> dict[str, mx.array]:
        """Views of the parameters by name."""
        return self._named(self._parts(self._flat))

    def _parts(self, flat: mx.array) -> list[mx.array]:
        ends = np.cumsum(self._sizes)
        return [
            flat[int(end) - size : int(end)].reshape(tensor.shape)
            for tensor, size, end in zip(self._tensors, self._sizes, ends, strict=True)
        ]

    def _named(self, parts: list[mx.array]) -> dict[str, mx.array]:
        return {tensor.name: part for tensor, part in zip(self._tensors, parts, strict=True)}

    def _share_of_loss(self, parts: list[mx.array], windows: mx.array, share: float) -> mx.array:
        """The windows' part of a batch's mean loss, which they are `share` of."""
        return self.network.token_losses(self._named(parts), windows).mean() * share
