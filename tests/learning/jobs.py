"""Jobs on a small run, and what the engine answers to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from nostrain.learning.dispatch import run_job
from nostrain.protocol.assignment import window_seed
from nostrain.protocol.jobs import (
    AggregateJob,
    AggregateResult,
    Candidate,
    EvaluateJob,
    EvaluateResult,
    TrainResult,
    ValidationJob,
    ValidationResult,
)
from nostrain.units import Digest, Pubkey

from .conftest import CODEC, MODEL, OUTER, SCORING, TRAINING, WORKERS, SmallRun

NAMES = tuple(Pubkey(f"{number:064x}") for number in range(1, WORKERS + 1))


@dataclasses.dataclass(frozen=True)
class Trained:
    """The first round of every worker, in `folder`."""

    folder: Path
    results: tuple[TrainResult, ...]

    def delta(self, slot: int) -> str:
        return str(self.folder / f"{slot}.delta")


def candidates(run: SmallRun, trained: Trained) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(name, trained.delta(slot), run.shard_of(slot), window_seed(run.state_id, slot)) for slot, name in enumerate(NAMES)
    )


def evaluate_job(run: SmallRun, offered: tuple[Candidate, ...], earlier: tuple[tuple[Digest, str], ...] = ()) -> EvaluateJob:
    assigned = {run.shard_of(slot) for slot in range(WORKERS)}
    return EvaluateJob(
        model=MODEL,
        training=TRAINING,
        codec=CODEC,
        outer=OUTER,
        scoring=SCORING,
        checkpoint=run.checkpoint,
        candidates=offered,
        committed=WORKERS,
        unassigned=tuple(path for path in run.shards if path not in assigned),
        seed="cd" * 32,
        earlier=earlier,
    )


def evaluated(job: EvaluateJob) -> EvaluateResult:
    result = run_job(job)
    assert isinstance(result, EvaluateResult)
    return result


def aggregate_job(run: SmallRun, trained: Trained, out: Path, order: tuple[int, ...] = (0, 1, 2)) -> AggregateJob:
    return AggregateJob(
        model=MODEL,
        codec=CODEC,
        outer=OUTER,
        state_id=run.state_id,
        checkpoint=run.checkpoint,
        deltas=tuple((trained.results[slot].delta.sha256, trained.delta(slot)) for slot in order),
        committed=WORKERS,
        checkpoint_out=str(out),
    )


def aggregated(job: AggregateJob) -> AggregateResult:
    result = run_job(job)
    assert isinstance(result, AggregateResult)
    return result


def validation_loss(run: SmallRun, checkpoint: str) -> int:
    job = ValidationJob(MODEL, checkpoint, run.validation, 32 * 50, 32, 8)
    result = run_job(job)
    assert isinstance(result, ValidationResult)
    assert result.tokens == 32 * 50
    return result.loss_nanonats
