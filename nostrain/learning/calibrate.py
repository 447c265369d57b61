"""How fast this machine trains a run's model: a few inner steps on values and tokens of no meaning, from which nothing is kept."""

from __future__ import annotations

import time
from typing import Final

import msgspec
import numpy as np

from nostrain.learning.engines.base import Flat, Model, Moments, Windows
from nostrain.learning.memory import MicroBatch
from nostrain.learning.resident import ResidentModel
from nostrain.protocol.jobs import CalibrateJob, CalibrateResult
from nostrain.protocol.manifest import TrainingSpec
from nostrain.protocol.tensors import parameter_count

ENOUGH_S: Final = 1.0
"""No further step is begun after so long."""
STEPS: Final = 8
_DRAWN: Final = 1 << 16
"""Different values; a model has them again and again, since drawing takes longer than training does."""


def calibrate(job: CalibrateJob, resident: ResidentModel, micro: MicroBatch) -> CalibrateResult:
    """Steps of as many windows as are trained on at once, after one that only warms up and counts if it took long enough by itself.

    The optimizer's part is counted once for each of them, not once a batch: where batches are divided, training is a little faster than this says.

    Raises:
        LocalProtocolError: the model cannot be built, or its losses are not finite.
        ConfigError: the engine or the device of the options is not there.
        MemoryError: there is too little memory even for one window.
    """
    return micro.attempt(lambda: micro.size(job.model, job.training), lambda size: _measured(job, resident, size))


def _measured(job: CalibrateJob, resident: ResidentModel, size: int) -> CalibrateResult:
    draw = np.random.default_rng(0)
    windows: Windows = draw.integers(0, job.model.vocab_size, (size, job.training.sequence_length + 1))
    training = msgspec.structs.replace(job.training, batch_size=size)
    count = parameter_count(job.model)
    values: Flat = np.resize(draw.standard_normal(_DRAWN, np.float32) * np.float32(0.02), count)
    with resident.scratch(job.model, values) as model:
        moments = Moments.fresh(count)
        spent, steps = _step(model, windows, training, moments), 1
        if spent < ENOUGH_S:
            spent, steps = 0.0, 0
        while spent < ENOUGH_S and steps < STEPS:
            spent += _step(model, windows, training, moments)
            steps += 1
    return CalibrateResult(tokens=steps * size * job.training.sequence_length, train_ms=max(1, round(spent * 1000)))


def _step(model: Model, windows: Windows, training: TrainingSpec, moments: Moments) -> float:
    """Seconds of one step."""
    begin = time.perf_counter()
    model.inner_steps(windows, training, 0, moments)
    return time.perf_counter() - begin
