"""Every job, run in this process. What a job does not need is not imported: only training and measuring load a framework."""

from __future__ import annotations

import os
from typing import assert_never

from nostrain.learning import build, calibrate, evaluate, train
from nostrain.learning.engines.base import DEFAULT_OPTIONS, THREADS_VARIABLE, EngineOptions
from nostrain.learning.files import LastMade
from nostrain.learning.memory import EvaluationBatch, MicroBatch
from nostrain.learning.resident import ResidentModel
from nostrain.protocol.jobs import AggregateJob, BuildRunJob, CalibrateJob, EvaluateJob, InspectJob, Job, JobResult, TrainJob, ValidationJob


class JobRunner:
    """Runs one job after the other with one engine, and keeps the model in memory between them; the results do not depend on that."""

    def __init__(self, options: EngineOptions = DEFAULT_OPTIONS) -> None:
        self._resident = ResidentModel(options)
        memory = options.memory_mb << 20
        self._made = LastMade()
        self._micro = MicroBatch(memory, options.micro_batch, options.checkpointing)
        self._passes = EvaluationBatch(memory)

    def run(self, job: Job) -> JobResult:
        """Run `job` to its end; running it again gives the same files and the same result, times apart.

        Raises:
            RemoteProtocolError, LocalProtocolError: a file or the job itself is unusable; see the function of each job.
            ConfigError: the engine or the device of the options is not there.
            OSError: a file cannot be read or written.
        """
        match job:
            case InspectJob():
                return build.inspect(job)
            case AggregateJob():
                return build.aggregate(job, self._resident, int(os.environ.get(THREADS_VARIABLE, "1")))
            case BuildRunJob():
                return build.build_run(job)
            case CalibrateJob():
                return calibrate.calibrate(job, self._resident, self._micro)
            case TrainJob():
                return train.train(job, self._resident, self._micro, self._made)
            case EvaluateJob():
                return evaluate.evaluate(job, self._resident, self._passes)
            case ValidationJob():
                return evaluate.validate(job, self._resident, self._passes)
            case _:
                assert_never(job)


def run_job(job: Job, options: EngineOptions = DEFAULT_OPTIONS) -> JobResult:
    """Run `job` by itself. Raises as `JobRunner.run`."""
    return JobRunner(options).run(job)
