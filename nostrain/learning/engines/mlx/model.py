"""The model over one flat vector in memory that mlx and numpy share: on a Mac the GPU's too (unified memory)."""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.learning.engines.base import Flat, Moments, Windows, learning_rate
from nostrain.learning.engines.mlx.adamw import Shared, Trajectory
from nostrain.learning.engines.mlx.memory import memory_errors
from nostrain.learning.engines.mlx.network import Network
from nostrain.protocol.manifest import ModelSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.layout import tensor_sizes


class MlxModel:
    """`base.Model`. Nothing is computed while parameters are written."""

    def __init__(self, spec: ModelSpec, flat: Flat, *, checkpointing: bool = False) -> None:
        """The model of `spec` with the values `flat` (copied); `checkpointing` as `base.EngineOptions`.

        Raises:
            LocalProtocolError: `flat` is not of this model.
        """
        self.network, self._tensors = Network(spec, checkpointing=checkpointing), model_tensors(spec)
        self._sizes = tensor_sizes(self._tensors)
        if flat.shape != (sum(self._sizes),):
            raise LocalProtocolError(f"{len(flat)} parameters are not those of the model: it has {sum(self._sizes)}")
        self._flat = Shared(flat)
        self._slope = mx.value_and_grad(self._share_of_loss)

    def read(self) -> Flat:
        """As `base.Model.read`: a view."""
        return self._flat.view

    def inner_steps(self, windows: Windows, training: TrainingSpec, steps_done: int, moments: Moments, micro_batch: int = 0) -> list[float]:
        """As `base.Model.inner_steps`."""
        with memory_errors():
            return self._inner_steps(windows, training, steps_done, moments, micro_batch)

    def _inner_steps(self, windows: Windows, training: TrainingSpec, steps_done: int, moments: Moments, micro_batch: int) -> list[float]:
        at = Trajectory(self._flat, moments)
        losses: list[float] = []
        for step, begin in enumerate(range(0, len(windows), training.batch_size)):
            loss, gradients = self._accumulated(windows[begin : begin + training.batch_size], micro_batch)
            at.step(gradients, training, learning_rate(training, steps_done + step))
            del gradients
            losses.append(loss)
        if not np.isfinite(losses).all():
            raise LocalProtocolError("training diverged: a loss is not finite")
        return losses

    def _accumulated(self, batch: Windows, micro_batch: int) -> tuple[float, list[mx.array]]:
        """Mean loss of the batch and its gradient by tensor, computed `micro_batch` windows at a time: the activations of one part are gone before the next."""
        total, sums = 0.0, list[mx.array]()
        size = micro_batch or len(batch)
        for begin in range(0, len(batch), size):
            part = batch[begin : begin + size]
            loss, gradients = self._slope(self._parts(), mx.array(part), len(part) / len(batch))
            mx.eval(loss, gradients)
            total += cast("float", loss.item())
            if not sums:
                sums = gradients
                continue
            for at in range(len(sums)):  # one after the other: of the gradients that were added, only one tensor is there twice
                sums[at] = sums[at] + gradients[at]
                mx.eval(sums[at])
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
        self._flat.view[:] = flat

    def replace(self, indices: NDArray[np.signedinteger[Any]], values: Flat) -> Flat:
        """As `base.Model.replace`."""
        kept: Flat = self._flat.view[indices]
        self._flat.view[indices] = values
        return kept

    def tensors(self) -> dict[str, mx.array]:
        """Views of the parameters by name."""
        return self._named(self._parts())

    def _parts(self) -> list[mx.array]:
        ends = np.cumsum(self._sizes)
        return [
            self._flat.values[int(end) - size : int(end)].reshape(tensor.shape)
            for tensor, size, end in zip(self._tensors, self._sizes, ends, strict=True)
        ]

    def _named(self, parts: list[mx.array]) -> dict[str, mx.array]:
        return {tensor.name: part for tensor, part in zip(self._tensors, parts, strict=True)}

    def _share_of_loss(self, parts: list[mx.array], windows: mx.array, share: float) -> mx.array:
        """The windows' part of a batch's mean loss, which they are `share` of."""
        return self.network.token_losses(self._named(parts), windows).mean() * share
