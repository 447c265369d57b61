"""Scoring: gain, provenance and overlap of every candidate of a round (design section 12, "Gain", "Did they train on their data?").

Every candidate is tried on the same windows in the same order, in batches of one fixed shape. The loss before is measured once; each
candidate's step is applied to the flat vector by index, measured, and undone bit by bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.learning.data import assigned_sample, cut, known, read_shard, unassigned_windows
from nostrain.learning.engines.base import Flat, Model, Windows
from nostrain.learning.files import read_blob_untrusted, read_delta_untrusted
from nostrain.learning.memory import EvaluationBatch
from nostrain.learning.resident import ResidentModel
from nostrain.learning.score import batch_losses, largest_overlaps, nanonats, provenance
from nostrain.protocol.footprint import evaluation_bytes
from nostrain.protocol.jobs import Candidate, CandidateScore, EvaluateJob, EvaluateResult, ValidationJob, ValidationResult
from nostrain.protocol.manifest import CodecSpec
from nostrain.sparseloco.aggregate import caps_of, sparse_step
from nostrain.sparseloco.delta import Indices
from nostrain.sparseloco.layout import tensor_sizes
from nostrain.sparseloco.rules import lone_weight
from nostrain.sparseloco.stack import Stack
from nostrain.units import Ppm, Pubkey

NOT_FINITE = "its step makes the loss infinite or no number"


@dataclass(frozen=True, slots=True)
class _Bench:
    """The windows of a round: int64 [windows, n + 1]; first the unassigned ones, then those of each valid candidate."""

    windows: Windows
    unassigned: slice
    assigned: list[slice]


def evaluate(job: EvaluateJob, resident: ResidentModel, passes: EvaluationBatch) -> EvaluateResult:
    """Score every candidate, in the order given. A blob that is no delta becomes a score with `error`; it is never raised.

    When memory is too little, all is measured again in passes of half as many windows.

    Raises:
        RemoteProtocolError: the checkpoint or a shard is unusable.
        LocalProtocolError: the job does not fit its manifest, or there is no unassigned shard.
        MemoryError: there is too little memory even for one window at a time.
    """
    begin = time.perf_counter()
    deltas = Stack(job.tensors, job.codec, len(job.candidates))
    errors = [_read_candidate(job, at, deltas) for at in range(len(deltas))]
    valid = [at for at, error in enumerate(errors) if error is None]
    bench = _bench(job, [job.candidates[at] for at in valid])
    caps = caps_of([deltas.squared_norms[at] for at in valid])
    steps = [(at, lone_weight(cap, job.outer, job.committed)) for at, cap in zip(valid, caps, strict=True)]

    def needed(windows: int) -> int:
        return evaluation_bytes(job.model, job.codec, windows * job.training.sequence_length, len(valid))

    before, after = passes.attempt(
        lambda: passes.size(job.scoring.eval_batch, needed), lambda size: _measured(job, resident, deltas, steps, bench.windows, size)
    )
    finite = [at for at, losses in enumerate(after) if np.isfinite(losses).all()]
    kept = _Bench(bench.windows, bench.unassigned, [bench.assigned[at] for at in finite])
    supports = [deltas.delta(valid[at]).support() for at in finite]
    workers = [job.candidates[valid[at]].worker for at in finite]
    measured = _scores(job, workers, supports, [caps[at] for at in finite], kept, before, [after[at] for at in finite])
    by_worker = {score.worker: score for score in measured}
    scores = tuple(
        by_worker.get(candidate.worker, CandidateScore(worker=candidate.worker, error=error or NOT_FINITE))
        for candidate, error in zip(job.candidates, errors, strict=True)
    )
    tokens = (1 + len(valid)) * len(bench.windows) * job.training.sequence_length
    return EvaluateResult(
        batch_losses(before[bench.unassigned], job.scoring.eval_batch), scores, tokens, round((time.perf_counter() - begin) * 1000)
    )


def validate(job: ValidationJob, resident: ResidentModel, passes: EvaluationBatch) -> ValidationResult:
    """Mean loss on consecutive windows at the start of the held-out shard: as many whole ones as `tokens` allow.

    Raises:
        RemoteProtocolError: the checkpoint is unusable or the shard is too short.
        MemoryError: as `evaluate`.
    """
    shard = read_shard(job.shard, job.dtype)
    count = job.tokens // job.sequence_length
    if count < 1 or len(shard) <= count * job.sequence_length:
        raise RemoteProtocolError("validation shard", f"{len(shard)} tokens are too few for {job.tokens} tokens")
    windows = known(cut(shard, np.arange(count) * job.sequence_length, job.sequence_length), job.model.vocab_size)

    def needed(size: int) -> int:
        return evaluation_bytes(job.model, CodecSpec(), size * job.sequence_length, 0)

    def measure(size: int) -> float:
        with resident.at(job.model, job.checkpoint) as model:
            return float(model.window_losses(windows, size).mean())

    loss = passes.attempt(lambda: passes.size(job.eval_batch, needed), measure)
    return ValidationResult(nanonats(loss), count * job.sequence_length)


def _measured(
    job: EvaluateJob, resident: ResidentModel, deltas: Stack, steps: Sequence[tuple[int, int]], windows: Windows, size: int
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Losses before, and with each step by itself (number of the delta, weight), in passes of `size` windows."""
    after = []
    with resident.at(job.model, job.checkpoint) as model:
        flat, before = model.read(), model.window_losses(windows, size)
        for at, weight in steps:
            delta = deltas.delta(at)
            after.append(_losses_with(model, delta.indices, sparse_step(flat, delta, weight), windows, size))
    return before, after


def _losses_with(model: Model, indices: Indices, values: Flat, windows: Windows, batch: int) -> NDArray[np.float64]:
    """Losses with `values` at `indices`; the model is left bit for bit as it was."""
    kept = model.replace(indices, values)
    losses = model.window_losses(windows, batch)
    model.replace(indices, kept)
    return losses


def _read_candidate(job: EvaluateJob, at: int, deltas: Stack) -> str | None:
    """Read it into the stack, or say what is wrong with it."""
    try:
        deltas.read_untrusted(at, read_blob_untrusted(job.candidates[at].delta, job.tensors, job.codec))
    except RemoteProtocolError as error:
        return str(error)
    return None


def _bench(job: EvaluateJob, candidates: Sequence[Candidate]) -> _Bench:
    if not job.unassigned:
        raise LocalProtocolError("evaluate: there is no unassigned shard")
    length = job.training.sequence_length
    shards = [read_shard(path, job.dtype) for path in job.unassigned]
    pairs = unassigned_windows(job.seed, [len(shard) for shard in shards], job.scoring.unassigned_tokens // length, length)
    parts = [cut(shards[at], [offset], length) for at, offset in pairs]
    assigned = []
    end = len(pairs)
    for candidate in candidates:
        shard = read_shard(candidate.shard, job.dtype)
        count = job.scoring.assigned_tokens // length
        offsets = assigned_sample(job.seed, candidate.window_seed, len(shard), job.training, count)
        parts.append(cut(shard, offsets, length))
        assigned.append(slice(end, end + len(offsets)))
        end += len(offsets)
    return _Bench(known(np.concatenate(parts), job.model.vocab_size), slice(0, len(pairs)), assigned)


def _scores(
    job: EvaluateJob,
    workers: Sequence[Pubkey],
    supports: Sequence[Indices],
    caps: Sequence[int],
    bench: _Bench,
    before: NDArray[np.float64],
    after: Sequence[NDArray[np.float64]],
) -> list[CandidateScore]:
    if not workers:
        return []
    gains = before - np.stack(after)
    size = sum(tensor_sizes(job.tensors))
    overlaps = largest_overlaps(supports, _earlier(job), size)
    batch = job.scoring.eval_batch
    losses_before = batch_losses(before[bench.unassigned], batch)
    scores = []
    for at, worker in enumerate(workers):
        losses_after = batch_losses(after[at][bench.unassigned], batch)
        evidence, error = provenance(gains, at, bench.assigned[at], bench.unassigned)
        others = [*supports[:at], *supports[at + 1 :]]
        scores.append(
            CandidateScore(
                worker=worker,
                weight=caps[at],
                gain=(sum(losses_before) - sum(losses_after)) // len(losses_before),
                losses_after=losses_after,
                assigned_gain=nanonats(float(gains[at, bench.assigned[at]].mean())),
                provenance=evidence,
                provenance_se=error,
                overlap_ppm=overlaps[at],
                overlap_round_ppm=Ppm(largest_overlaps([supports[at]], others, size)[0]),
            )
        )
    return scores


def _earlier(job: EvaluateJob) -> Iterator[Indices]:
    """Supports of the earlier deltas, one after the other; one that is no delta never entered a checkpoint and overlaps with nothing."""
    for _, path in job.earlier:
        try:
            yield read_delta_untrusted(path, job.tensors, job.codec).support()
        except RemoteProtocolError:
            continue
