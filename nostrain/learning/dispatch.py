"""`run_job`: every job, run in this process. What a job does not need is not imported: only training and measuring load a framework."""

from __future__ import annotations

from typing import assert_never

from nostrain.learning import build, evaluate, train
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import DEFAULT_OPTIONS, EngineOptions, Flat, Model
from nostrain.protocol.jobs import AggregateJob, BuildRunJob, EvaluateJob, InspectJob, Job, JobResult, TrainJob, ValidationJob
from nostrain.protocol.manifest import ModelSpec


def run_job(job: Job, options: EngineOptions = DEFAULT_OPTIONS) -> JobResult:
    """Run `job` to its end; running it again gives the same files and the same result, times apart.

    Raises:
        RemoteProtocolError, LocalProtocolError: a file or the job itself is unusable; see the function of each job.
        ConfigError: the engine or the device of `options` is not there.
        OSError: a file cannot be read or written.
    """

    def open_model(spec: ModelSpec, flat: Flat) -> Model:
        return load_engine(options.kind).open_model(spec, flat, options)

    match job:
        case InspectJob():
            return build.inspect(job)
        case AggregateJob():
            return build.aggregate(job)
        case BuildRunJob():
            return build.build_run(job)
        case TrainJob():
            return train.train(job, open_model)
        case EvaluateJob():
            return evaluate.evaluate(job, open_model)
        case ValidationJob():
            return evaluate.validate(job, open_model)
        case _:
            assert_never(job)
