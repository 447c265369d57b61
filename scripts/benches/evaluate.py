"""What a validator's engine does in a round, with the model in memory between its jobs and without; and how far two engines' gains are apart.

    scripts/bench evaluate [--engine pytorch|mlx] [--size tiny|10m] [--workers 4] [--own-blas] [--against mlx|pytorch]

Deltas are real: every worker trains a few steps on its shard of Python's library first. Times are seconds of a core.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import get_args

import msgspec
from _side_by_side import side_by_side

from nostrain.learning.beside import EngineBeside
from nostrain.learning.blas import prepare_process
from nostrain.learning.dispatch import JobRunner, run_job
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions
from nostrain.protocol.assignment import shard_index, window_seed
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import (
    AggregateJob,
    BuildRunJob,
    BuildRunResult,
    Candidate,
    EvaluateJob,
    EvaluateResult,
    TrainJob,
    TrainResult,
    ValidationJob,
)
from nostrain.protocol.manifest import CodecSpec, ModelSpec, OuterSpec, ScoringSpec, TrainingSpec
from nostrain.protocol.tensors import parameter_count
from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted
from nostrain.units import Pubkey

SIZES = {
    "tiny": ModelSpec(),
    "10m": ModelSpec(hidden_size=384, intermediate_size=1152, num_hidden_layers=5, num_attention_heads=6, num_key_value_heads=6),
}


class Round:
    """A run's files, the deltas of its first round, and the jobs that a validator is then given."""

    def __init__(self, folder: Path, spec: ModelSpec, scoring: ScoringSpec, workers: int, steps: int, runner: JobRunner) -> None:
        built = runner.run(BuildRunJob(None, spec, 1, 1 << 20, 1 << 20, str(folder)))
        assert isinstance(built, BuildRunResult)
        paths = {blob.sha256: path for blob, path in built.blobs}
        dataset = msgspec.json.decode(Path(paths[built.dataset.sha256]).read_bytes(), type=DatasetManifest)
        shards = [paths[shard.sha256] for shard in dataset.shards]
        state, codec, outer, training = initial_state_id(built.root), CodecSpec(), OuterSpec(), TrainingSpec(inner_steps=steps)
        checkpoint, after = paths[built.checkpoint.sha256], str(folder / "next")
        candidates, deltas = [], []
        for slot in range(workers):
            shard, seed = shards[shard_index(state, slot, len(shards))], window_seed(state, slot)
            out = str(folder / f"{slot}.delta")
            made = runner.run(TrainJob(spec, training, codec, checkpoint, shard, seed, 60, None, out, str(folder / "state")))
            assert isinstance(made, TrainResult)
            candidates.append(Candidate(Pubkey(f"{slot:064x}"), out, shard, seed))
            deltas.append((made.delta.sha256, out))
        free = tuple(sorted(set(shards) - {one.shard for one in candidates}))
        self.checkpoint = checkpoint
        self.evaluate = EvaluateJob(
            spec, TrainingSpec(), codec, outer, scoring, checkpoint, tuple(candidates), workers, free, "cd" * 32, dtype=dataset.dtype
        )
        self.aggregate = AggregateJob(spec, codec, outer, state, checkpoint, tuple(deltas), workers, after)
        self.validate = ValidationJob(
            spec, after, paths[dataset.validation.sha256], scoring.validation_tokens, 128, scoring.eval_batch, dtype=dataset.dtype
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=get_args(EngineKind), default="pytorch")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="inner steps that each worker trains before")
    parser.add_argument(
        "--tokens", type=int, default=ScoringSpec().unassigned_tokens, help="unassigned tokens, and those of the validation"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--own-blas", action="store_true", help="the matrix product that the framework brings, even where OpenBLAS is faster"
    )
    parser.add_argument("--against", choices=get_args(EngineKind), help="compare gains with those of this engine")
    options = parser.parse_args()
    if not options.own_blas:
        prepare_process(options.engine)
    engine = EngineOptions(options.engine)
    spec, scoring = SIZES[options.size], ScoringSpec(unassigned_tokens=options.tokens, validation_tokens=options.tokens)
    with tempfile.TemporaryDirectory() as folder:
        jobs = Round(Path(folder), spec, scoring, options.workers, options.steps, JobRunner(engine))
        print(
            f"{load_engine(engine.kind).version}, {parameter_count(spec):,} parameters, {options.workers} candidates, {options.tokens:,} tokens"
        )
        measure(jobs, engine, options.rounds)
        if options.against:
            compare(jobs, engine, options.against)


def measure(jobs: Round, engine: EngineOptions, rounds: int) -> None:
    """One evaluation, then all that a validator's engine does from one reveal to the next."""
    resident = JobRunner(engine)
    done = resident.run(jobs.evaluate)
    assert isinstance(done, EvaluateResult)

    def by_themselves() -> None:
        for job in (jobs.evaluate, jobs.aggregate, jobs.validate):
            run_job(job, engine)

    def one_after_the_other() -> None:
        for job in (jobs.evaluate, jobs.aggregate, jobs.validate):
            resident.run(job)

    ways = {
        "evaluate, opening the model": lambda: run_job(jobs.evaluate, engine),
        "evaluate, model resident": lambda: resident.run(jobs.evaluate),
    }
    side_by_side(ways, rounds=rounds, units=done.tokens, unit="tokens", clock=time.process_time)
    both = {
        "evaluate, outer step, validate; each by itself": by_themselves,
        "evaluate, outer step, validate; resident": one_after_the_other,
    }
    side_by_side(both, rounds=rounds, units=1, unit="rounds", clock=time.process_time)
    opening = []
    for _ in range(rounds):
        begin = time.process_time()
        flat = load_checkpoint_untrusted(jobs.checkpoint, jobs.evaluate.tensors)
        load_engine(engine.kind).open_model(jobs.evaluate.model, flat, engine)
        opening.append(time.process_time() - begin)
    print(f"opening the model takes {statistics.median(opening) * 1e3:.1f} ms of it")


def compare(jobs: Round, engine: EngineOptions, other: EngineKind) -> None:
    """The same deltas, the same windows, two engines: gains in nanonats, and their difference as part of the best one."""
    with EngineBeside(other) as beside:
        theirs = beside.run(jobs.evaluate)
    ours = run_job(jobs.evaluate, engine)
    assert isinstance(ours, EvaluateResult)
    assert isinstance(theirs, EvaluateResult)
    best = max(score.gain for score in ours.scores)
    for mine, yours in zip(ours.scores, theirs.scores, strict=True):
        apart = abs(mine.gain - yours.gain)
        print(f"gain {mine.gain:>12,} {engine.kind}, {yours.gain:>12,} {other}: {apart:,} nanonats apart, {apart / best:.1e} of the best")
    spread = max(abs(a - b) for a, b in zip(ours.losses_before, theirs.losses_before, strict=True))
    print(f"losses before, by batch: at most {spread:,} nanonats apart")


if __name__ == "__main__":
    main()
