"""Error feedback (SparseLoCo, arXiv:2508.15706, algorithm 1): what was not sent is remembered, decayed, and sent later."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nostrain.sparseloco.delta import Delta
from nostrain.units import PPM, Ppm

_BLOCK = 1 << 16


def accumulate(residual: NDArray[np.float32], pseudo_gradient: NDArray[np.float32], decay: Ppm) -> NDArray[np.float32]:
    """residual · decay + pseudo_gradient, flat float32, in the memory of `residual`, which is zero in the first round.

    Block by block, so that memory is read once.
    """
    factor = np.float32(decay / PPM)
    for at in range(0, len(residual), _BLOCK):
        block = residual[at : at + _BLOCK]
        np.multiply(block, factor, out=block)
        np.add(block, pseudo_gradient[at : at + _BLOCK], out=block)
    return residual


def remainder(accumulated: NDArray[np.float32], sent: Delta) -> NDArray[np.float32]:
    """What of `accumulated` the delta `sent` did not carry: the next residual, flat float32, in the memory of `accumulated`."""
    for at in range(0, len(sent.indices), _BLOCK):
        part = slice(at, at + _BLOCK)
        accumulated[sent.indices[part]] -= sent.values(part)
    return accumulated
