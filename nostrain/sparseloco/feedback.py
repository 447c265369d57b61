"""Error feedback (SparseLoCo, arXiv:2508.15706, algorithm 1): what was not sent is remembered, decayed, and sent later."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nostrain.sparseloco.delta import Delta
from nostrain.units import PPM, Ppm


def accumulate(residual: NDArray[np.float32], pseudo_gradient: NDArray[np.float32], decay: Ppm) -> NDArray[np.float32]:
    """residual · decay + pseudo_gradient, flat float32; `residual` is zero in the first round."""
    return residual * np.float32(decay / PPM) + pseudo_gradient


def remainder(accumulated: NDArray[np.float32], sent: Delta) -> NDArray[np.float32]:
    """What of `accumulated` the delta `sent` did not carry: the next residual, flat float32."""
    left = accumulated.copy()
    left[sent.indices] -= sent.values()
    return left
