"""AdamW on one flat vector: Loshchilov and Hutter, arXiv:1711.05101, algorithm 2, in the order of operations of `torch.optim.AdamW`.

It goes through the vector block by block, and writes over what was there: only a block is held twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import mlx.core as mx
import numpy as np

from nostrain.learning.engines.base import ADAM_EPSILON, Flat, Moments
from nostrain.protocol.manifest import TrainingSpec
from nostrain.units import PPM

_BLOCK: Final = 1 << 18
"""Values of a block, at least; less than twice as many at most."""


class Shared:
    """A float32 vector [size] in memory that mlx and numpy share. mlx takes `values` for constant: nothing may be left uncomputed when `view` is written."""

    def __init__(self, flat: Flat) -> None:
        """`flat` is copied."""
        self.values = mx.array(flat)
        mx.eval(self.values)
        self.view: Flat = np.array(self.values, copy=False)


class Trajectory:
    """A point of the optimization: the parameters `flat`, and moments [size], which are moved into memory of mlx's."""

    def __init__(self, flat: Shared, moments: Moments) -> None:
        self._flat, self._moments = flat, moments
        self._first = Shared(moments.first)
        moments.first = self._first.view
        self._second = Shared(moments.second)
        moments.second = self._second.view

    def step(self, gradients: list[mx.array], training: TrainingSpec, rate: float) -> None:
        """Go one step against the `gradients` (one a tensor, clipped together) at learning rate `rate`."""
        self._moments.steps += 1
        scale = _clip(gradients, training.clip_ppm / PPM)
        for begin, gradient in _blocks(gradients):
            self._move(slice(begin, begin + gradient.size), gradient * scale, training, rate)

    def _move(self, part: slice, gradient: mx.array, training: TrainingSpec, rate: float) -> None:
        beta1, beta2, steps = training.beta1_ppm / PPM, training.beta2_ppm / PPM, self._moments.steps
        first, second = self._first.values[part], self._second.values[part]
        first = first + (gradient - first) * (1 - beta1)
        second = second * beta2 + (1 - beta2) * (gradient * gradient)
        deviation = mx.sqrt(second) / math.sqrt(1 - beta2**steps) + ADAM_EPSILON
        decayed = self._flat.values[part] * (1 - rate * training.weight_decay_ppm / PPM)
        flat = decayed - (rate / (1 - beta1**steps)) * (first / deviation)
        mx.eval(first, second, flat)
        for shared, moved in ((self._first, first), (self._second, second), (self._flat, flat)):
            shared.view[part] = np.array(moved, copy=False)


def _clip(gradients: list[mx.array], limit: float) -> mx.array:
    """What gradients of a norm above `limit` are scaled down by, else 1; no number if one of theirs is none.

    Squares are summed row by row: one long float32 sum would stop growing.
    """
    squares = mx.stack([mx.square(gradient).sum(axis=-1).sum() for gradient in gradients])
    scale = mx.minimum(1.0, limit / mx.sqrt(squares.sum()))
    mx.eval(scale)
    return scale


def _blocks(tensors: list[mx.array]) -> Iterator[tuple[int, mx.array]]:
    """The flat vector that `tensors` are one after the other, in blocks, and where each begins."""
    begin, pieces = 0, list[mx.array]()
    for tensor in tensors:
        flat = tensor.reshape(-1)
        for at in range(0, flat.size, _BLOCK):
            pieces.append(flat[at : at + _BLOCK])
            if (size := sum(piece.size for piece in pieces)) >= _BLOCK:
                yield begin, mx.concatenate(pieces)
                begin, pieces = begin + size, []
    if pieces:
        yield begin, mx.concatenate(pieces)
