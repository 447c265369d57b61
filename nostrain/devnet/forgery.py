"""What a worker that does not train hands in: a delta that every check of form lets through, of random values. Needs numpy."""

from __future__ import annotations

import numpy as np

from nostrain.protocol.jobs import TrainJob
from nostrain.sparseloco.codec import encode
from nostrain.sparseloco.layout import plan

SPREAD = 0.01
"""About as large as what training gives."""


def random_delta(job: TrainJob, seed: bytes) -> bytes:
    """The canonical encoding of Gaussian noise for the job's model; the same for the same seed."""
    size = plan(job.tensors, job.codec).size
    values = np.random.default_rng(list(seed)).standard_normal(size, dtype=np.float32) * np.float32(SPREAD)
    return encode(job.tensors, job.codec, values)
