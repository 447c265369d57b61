"""A worker's part of a round: H inner steps by an engine, then the compressed pseudo-gradient (SparseLoCo, arXiv:2508.15706, algorithm 1)."""

from __future__ import annotations

import time

import numpy as np

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.learning.data import cut, known, read_shard, training_windows
from nostrain.learning.engines.base import Flat, Windows, WorkerState
from nostrain.learning.files import LastMade
from nostrain.learning.memory import MicroBatch
from nostrain.learning.resident import ResidentModel
from nostrain.learning.score import nanonats
from nostrain.protocol.jobs import OwnStep, TrainJob, TrainResult
from nostrain.protocol.manifest import BlobRef, TensorSpec
from nostrain.sparseloco.aggregate import cap_weights, outer_step
from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted, write_bytes, write_checkpoint
from nostrain.sparseloco.codec import compress
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.sparseloco.rules import plan_step


def train(job: TrainJob, resident: ResidentModel, micro: MicroBatch, made: LastMade) -> TrainResult:
    """Run the job; writes `delta_out` and then `state_out`, both atomically. When memory is too little, it begins again with half the windows at once.

    Raises:
        RemoteProtocolError: the checkpoint or the shard is unusable.
        LocalProtocolError: training diverged, or the state file is not one of this model.
        MemoryError: there is too little memory even for one window at a time.
    """
    begin = time.perf_counter()
    shard = read_shard(job.shard, job.dtype)
    windows = known(cut(shard, training_windows(job.seed, len(shard), job.training), job.training.sequence_length), job.model.vocab_size)
    losses, gradient, state = _trained(job, windows, resident, micro, made)
    trained = time.perf_counter()
    total = accumulate(state.residual, gradient, job.codec.error_feedback_ppm)
    del gradient
    blob, sent = compress(job.tensors, job.codec, total)
    state.residual = remainder(total, sent)
    delta = write_bytes(job.delta_out, blob)
    made.keep(delta.sha256, sent)
    _save_state(job.state_out, state)
    quarter = max(1, len(losses) // 4)
    return TrainResult(
        delta=delta,
        loss_first_nanonats=nanonats(float(np.mean(losses[:quarter]))),
        loss_last_nanonats=nanonats(float(np.mean(losses[-quarter:]))),
        tokens=windows.shape[0] * job.training.sequence_length,
        train_ms=round((trained - begin) * 1000),
        encode_ms=round((time.perf_counter() - trained) * 1000),
    )


def _trained(
    job: TrainJob, windows: Windows, resident: ResidentModel, micro: MicroBatch, made: LastMade
) -> tuple[list[float], Flat, WorkerState]:
    """Losses, pseudo-gradient (θ before less θ after) and state after the inner steps. Every attempt begins with what is on disk."""
    return micro.attempt(lambda: micro.size(job.model, job.training), lambda size: _attempt(job, windows, resident, size, made))


def _attempt(job: TrainJob, windows: Windows, resident: ResidentModel, size: int, made: LastMade) -> tuple[list[float], Flat, WorkerState]:
    """With `size` windows at once. Whatever it holds goes with it when it fails."""
    with resident.at(job.model, job.checkpoint) as model:
        base = model.read().copy()
        start = base if job.own is None else _stepped(job, job.own, base, made)
        if job.own is not None:
            model.write(start)
        state = _load_state(job.state_in, len(start))
        losses = model.inner_steps(windows, job.training, job.steps_done, state, size)
        gradient = start - model.read()
        model.write(base)
    return losses, gradient, state


def _stepped(job: TrainJob, own: OwnStep, base: Flat, made: LastMade) -> Flat:
    """The parameters after the outer step over one delta of our own."""
    try:
        delta = made.read_untrusted(own.path, job.tensors, job.codec, own.delta)
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"our own delta {own.path}: {error}") from error
    return outer_step(base, [delta], plan_step(cap_weights([delta]), own.outer, own.committed))


def _state_tensors(size: int) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, (length,)) for name, length in (("exp_avg", size), ("exp_avg_sq", size), ("residual", size), ("step", 1)))


def _load_state(path: str | None, size: int) -> WorkerState:
    if path is None:
        return WorkerState.fresh(size)
    try:
        values = load_checkpoint_untrusted(path, _state_tensors(size))
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"worker state {path}: {error}") from error
    first, second, residual = (values[at * size : (at + 1) * size] for at in range(3))
    return WorkerState(residual, first, second, int(values[-1]))


def _save_state(path: str, state: WorkerState) -> BlobRef:
    values = np.concatenate([state.first_moment, state.second_moment, state.residual, np.array([state.steps], np.float32)])
    return write_checkpoint(path, _state_tensors(len(state.residual)), values)
