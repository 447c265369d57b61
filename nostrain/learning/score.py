"""From losses and supports to a score: pure arithmetic on arrays, no model (design section 12)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrain.sparseloco.delta import Indices
from nostrain.units import PPM, Ppm

NANO = 1_000_000_000

Floats = NDArray[np.float64]


MOST: Final = 10**15
"""A million nats a token: what a hostile checkpoint's larger losses are reported as, so that they fit wherever a loss goes."""


def nanonats(loss: float) -> int:
    """Nats as integer: 1e-9 nat, rounded to nearest, within ±MOST; what is no number is MOST."""
    return MOST if math.isnan(loss) else max(-MOST, min(MOST, round(max(-1e12, min(1e12, loss)) * NANO)))


def batch_losses(losses: Floats, batch: int) -> tuple[int, ...]:
    """Mean of every `batch` consecutive windows, in nanonats; the last batch may be shorter."""
    return tuple(nanonats(float(losses[at : at + batch].mean())) for at in range(0, len(losses), batch))


def provenance(gains: Floats, own: int, assigned: slice, unassigned: slice) -> tuple[int, int]:
    """D_i and its standard error, in nanonats. `gains`: [candidates, windows], nats a token.

    D_i = mean over the assigned windows of (g_i - mean of the others' g), less the same over the unassigned ones: what a delta
    gains on the windows that it was trained on, and the others were not. (0, 0) if there is nobody to compare with.
    """
    others = np.delete(gains, own, axis=0)
    near, far = gains[own, assigned], gains[own, unassigned]
    if not len(others) or min(len(near), len(far)) < 2:
        return 0, 0
    near, far = near - others[:, assigned].mean(axis=0), far - others[:, unassigned].mean(axis=0)
    error = math.sqrt(float(near.var(ddof=1)) / len(near) + float(far.var(ddof=1)) / len(far))
    return nanonats(float(near.mean() - far.mean())), nanonats(error)


def largest_overlaps(supports: Sequence[Indices], others: Iterable[Indices], size: int) -> list[Ppm]:
    """For each support (indices below `size`), the largest share of it that lies in one of `others`."""
    largest = [0] * len(supports)
    for other in others:
        marked = np.zeros(size, np.bool_)
        marked[other] = True
        for at, support in enumerate(supports):
            if len(support):
                largest[at] = max(largest[at], int(np.count_nonzero(marked[support])) * PPM // len(support))
    return [Ppm(share) for share in largest]
