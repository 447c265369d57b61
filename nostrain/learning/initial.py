"""The initial parameters of a new run: numpy alone, so that no framework is needed to publish a run and every engine starts from the same."""

from __future__ import annotations

import numpy as np

from nostrain.learning.engines.base import Flat
from nostrain.protocol.manifest import ModelSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.aggregate import canonical_zero

DEVIATION = np.float32(0.02)
"""Standard deviation of every matrix, as transformers' `initializer_range`."""


def initial_parameters(spec: ModelSpec, seed: int) -> Flat:
    """Flat initial values, [size]: matrices normal, norms one, biases zero.

    The published checkpoint is what counts: nobody has to draw the same numbers from `seed` again.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    parts: list[Flat] = []
    for tensor in model_tensors(spec):
        if len(tensor.shape) > 1:
            parts.append((draw.standard_normal(tensor.shape, np.float32) * DEVIATION).ravel())
        else:
            parts.append(np.full(tensor.shape, 0 if tensor.name.endswith(".bias") else 1, np.float32))
    return canonical_zero(np.concatenate(parts))
