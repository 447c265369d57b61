"""AdamW on one flat vector: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2, in the order of operations of `torch.optim.AdamW`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mlx.core as mx

from nostrain.learning.engines.base import ADAM_EPSILON
from nostrain.protocol.manifest import TrainingSpec
from nostrain.units import PPM


@dataclass(slots=True)
class Trajectory:
    """A point of the optimization: parameters and moments, float32 [size] each, and the number of steps that led to the moments."""

    flat: mx.array
    first: mx.array
    second: mx.array
    steps: int

    def step(self, gradient: mx.array, training: TrainingSpec, rate: float) -> None:
        """Go one step against the flat `gradient` at learning rate `rate`."""
        beta1, beta2 = training.beta1_ppm / PPM, training.beta2_ppm / PPM
        self.steps += 1
        self.first = self.first + (gradient - self.first) * (1 - beta1)
        self.second = self.second * beta2 + (1 - beta2) * (gradient * gradient)
        deviation = mx.sqrt(self.second) / math.sqrt(1 - beta2**self.steps) + ADAM_EPSILON
        decayed = self.flat * (1 - rate * training.weight_decay_ppm / PPM)
        self.flat = decayed - (rate / (1 - beta1**self.steps)) * (self.first / deviation)


def clipped(gradients: list[mx.array], limit: float) -> mx.array:
    """The gradients of all tensors as one flat vector, scaled down to the norm `limit` if theirs is larger; what is no number stays so.

    Squares are summed row by row: one long float32 sum would stop growing.
    """
    squares = mx.stack([mx.square(gradient).sum(axis=-1).sum() for gradient in gradients])
    scale = mx.minimum(1.0, limit / mx.sqrt(squares.sum()))
    return mx.concatenate([gradient.reshape(-1) for gradient in gradients]) * scale
