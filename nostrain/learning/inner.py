"""H inner AdamW steps, then the compressed pseudo-gradient (SparseLoCo, arXiv:2508.15706, algorithm 1)."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.learning.data import cut, read_shard, training_windows
from nostrain.learning.model import FlatModel, load_model
from nostrain.learning.score import nanonats
from nostrain.protocol.jobs import TrainJob, TrainResult
from nostrain.protocol.manifest import BlobRef, TensorSpec, TrainingSpec
from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted, write_bytes, write_checkpoint
from nostrain.sparseloco.codec import compress
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.units import PPM

PPB = 1_000_000_000
_ADAM_EPSILON = 1e-8


@dataclass(slots=True)
class WorkerState:
    """What a worker keeps between rounds: the residual and AdamW's moments (flat float32 [size] each) and the number of its own steps.

    The moments are kept because starting AdamW afresh every round cost 0.3 to 0.5 bits a byte after 8 rounds of 30 steps.
    """

    residual: NDArray[np.float32]
    first_moment: NDArray[np.float32]
    second_moment: NDArray[np.float32]
    steps: int


def train(job: TrainJob) -> TrainResult:
    """Run the job; writes `delta_out` and then `state_out`, both atomically.

    Raises:
        RemoteProtocolError: the checkpoint or the shard is unusable.
        LocalProtocolError: training diverged, or the state file is not one of this model.
    """
    begin = time.perf_counter()
    model = load_model(job.model, job.tensors, job.checkpoint)
    start = model.flat.copy()
    state = _load_state(job.state_in, len(start))
    shard = read_shard(job.shard)
    windows = cut(shard, training_windows(job.seed, len(shard), job.training), job.training.sequence_length)
    losses = inner_steps(model, windows, job.training, job.steps_done, state)
    trained = time.perf_counter()
    total = accumulate(state.residual, start - model.flat, job.codec.error_feedback_ppm)
    blob, sent = compress(job.tensors, job.codec, total)
    state.residual = remainder(total, sent)
    delta = write_bytes(job.delta_out, blob)
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


def inner_steps(model: FlatModel, windows: NDArray[np.int64], training: TrainingSpec, steps_done: int, state: WorkerState) -> list[float]:
    """Train `model` on `windows` [H · batch, n + 1], in order, and update the moments of `state`, both in place.

    Returns the loss (nats a token) of every step. Deterministic on one machine with one number of threads.

    Raises:
        LocalProtocolError: a loss is not finite.
    """
    gradient = model.attach_gradient()
    flat = torch.nn.Parameter(model.parameters)
    flat.grad = gradient
    optimizer = _optimizer(flat, training, state)
    tokens = torch.from_numpy(windows)
    limit = training.clip_ppm / PPM
    losses = []
    for step, at in enumerate(range(0, len(windows), training.batch_size)):
        optimizer.param_groups[0]["lr"] = learning_rate(training, steps_done + step)
        gradient.zero_()
        loss = model.token_losses(tokens[at : at + training.batch_size]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.linalg.vector_norm(gradient))
        if norm > limit:
            gradient.mul_(limit / norm)
        optimizer.step()
        losses.append(float(loss.detach()))
    if not np.isfinite(losses).all():
        raise LocalProtocolError("training diverged: a loss is not finite")
    state.steps += len(losses)
    return losses


def learning_rate(training: TrainingSpec, step: int) -> float:
    """Linear warm-up over `warmup_steps` inner steps of the run, then constant."""
    return training.learning_rate_ppb / PPB * min(1.0, (step + 1) / max(1, training.warmup_steps))


def _optimizer(flat: torch.nn.Parameter, training: TrainingSpec, state: WorkerState) -> torch.optim.AdamW:
    """One AdamW over the flat vector, whose moments are the memory of `state`."""
    optimizer = torch.optim.AdamW(
        [flat],
        betas=(training.beta1_ppm / PPM, training.beta2_ppm / PPM),
        eps=_ADAM_EPSILON,
        weight_decay=training.weight_decay_ppm / PPM,
        foreach=False,
    )
    optimizer.state[flat] = {
        "step": torch.tensor(float(state.steps)),
        "exp_avg": torch.from_numpy(state.first_moment),
        "exp_avg_sq": torch.from_numpy(state.second_moment),
    }
    return optimizer


def fresh_state(size: int) -> WorkerState:
    """The state of a worker before its first round."""
    return WorkerState(np.zeros(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32), 0)


def _state_tensors(size: int) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, (length,)) for name, length in (("exp_avg", size), ("exp_avg_sq", size), ("residual", size), ("step", 1)))


def _load_state(path: str | None, size: int) -> WorkerState:
    if path is None:
        return fresh_state(size)
    try:
        values = load_checkpoint_untrusted(path, _state_tensors(size))
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"worker state {path}: {error}") from error
    first, second, residual = (values[at * size : (at + 1) * size].copy() for at in range(3))
    return WorkerState(residual, first, second, int(values[-1]))


def _save_state(path: str, state: WorkerState) -> BlobRef:
    values = np.concatenate([state.first_moment, state.second_moment, state.residual, np.array([state.steps], np.float32)])
    return write_checkpoint(path, _state_tensors(len(state.residual)), values)
