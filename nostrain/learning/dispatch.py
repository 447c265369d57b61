"""`run_job`: every job, run in this process. What a job does not need is not imported: aggregation loads no torch."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import assert_never

from nostrain.learning import build
from nostrain.protocol.jobs import AggregateJob, BuildRunJob, EvaluateJob, InspectJob, Job, JobResult, TrainJob, ValidationJob

THREADS_VARIABLE = "NOSTRAIN_ENGINE_THREADS"


def run_job(job: Job) -> JobResult:
    """Run `job` to its end; running it again gives the same files and the same result, times apart.

    Raises:
        RemoteProtocolError, LocalProtocolError: a file or the job itself is unusable; see the function of each job.
        OSError: a file cannot be read or written.
    """
    match job:
        case InspectJob():
            return build.inspect(job)
        case AggregateJob():
            return build.aggregate(job)
        case BuildRunJob():
            prepare_torch()
            return build.build_run(job)
        case TrainJob():
            prepare_torch()
            from nostrain.learning.inner import train

            return train(job)
        case EvaluateJob():
            prepare_torch()
            from nostrain.learning.evaluate import evaluate

            return evaluate(job)
        case ValidationJob():
            prepare_torch()
            from nostrain.learning.evaluate import validate

            return validate(job)
        case _:
            assert_never(job)


@lru_cache(maxsize=1)
def prepare_torch() -> None:
    """Import torch once, with as many threads as the environment says (one if it does not) and deterministic kernels only.

    The number of threads can change the last bit of a sum: a run that must repeat bit by bit keeps it.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch

    torch.set_num_threads(int(os.environ.get(THREADS_VARIABLE, "1")))
    torch.use_deterministic_algorithms(True)
