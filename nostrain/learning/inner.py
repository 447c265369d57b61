"""H inner AdamW steps, then the compressed pseudo-gradient (SparseLoCo, arXiv:2508.15706, algorithm 1)."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.learning.data import cut, read_shard, training_windows
from nostrain.learning.model import FlatModel, load_model
from nostrain.protocol.jobs import TrainJob, TrainResult
from nostrain.protocol.manifest import TensorSpec, TrainingSpec
from nostrain.sparseloco.checkpoint import load_checkpoint_untrusted, write_bytes, write_checkpoint
from nostrain.sparseloco.codec import decode_untrusted, encode
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.units import PPM

PPB = 1_000_000_000
_ADAM_EPSILON = 1e-8


def train(job: TrainJob) -> TrainResult:
    """Run the job; writes `delta_out` and then `state_out`, both atomically.

    The private state is the error-feedback residual alone: AdamW starts afresh every round (measured: no worse, and a third of the state).

    Raises:
        RemoteProtocolError: the checkpoint or the shard is unusable.
        LocalProtocolError: training diverged, or the state file is not one of this model.
    """
    begin = time.perf_counter()
    model = load_model(job.model, job.tensors, job.checkpoint)
    start = model.flat.copy()
    shard = read_shard(job.shard)
    windows = cut(shard, training_windows(job.seed, len(shard), job.training), job.training.sequence_length)
    losses = inner_steps(model, windows, job.training, job.steps_done)
    trained = time.perf_counter()
    residual = load_checkpoint_untrusted(job.state_in, _state_tensors(len(start))) if job.state_in is not None else None
    total = accumulate(residual, start - model.flat, job.codec.error_feedback_ppm)
    blob = encode(job.tensors, job.codec, total)
    left = remainder(total, decode_untrusted(blob, job.tensors, job.codec))
    delta = write_bytes(Path(job.delta_out), blob)
    write_checkpoint(job.state_out, _state_tensors(len(start)), left)
    quarter = max(1, len(losses) // 4)
    return TrainResult(
        delta=delta,
        loss_first_nanonats=round(float(np.mean(losses[:quarter])) * PPB),
        loss_last_nanonats=round(float(np.mean(losses[-quarter:])) * PPB),
        tokens=windows.shape[0] * job.training.sequence_length,
        train_ms=round((trained - begin) * 1000),
        encode_ms=round((time.perf_counter() - trained) * 1000),
    )


def inner_steps(model: FlatModel, windows: NDArray[np.int64], training: TrainingSpec, steps_done: int) -> list[float]:
    """Train `model` in place on `windows` [H · batch, n + 1], in order; the loss (nats) of every step. Deterministic on one machine.

    Raises:
        LocalProtocolError: a loss is not finite.
    """
    gradient = model.attach_gradient()
    flat = torch.nn.Parameter(model.parameters)
    flat.grad = gradient
    optimizer = torch.optim.AdamW(
        [flat],
        betas=(training.beta1_ppm / PPM, training.beta2_ppm / PPM),
        eps=_ADAM_EPSILON,
        weight_decay=training.weight_decay_ppm / PPM,
        foreach=False,
    )
    losses = []
    tokens = torch.from_numpy(windows)
    for step, at in enumerate(range(0, len(windows), training.batch_size)):
        optimizer.param_groups[0]["lr"] = learning_rate(training, steps_done + step)
        gradient.zero_()
        loss = model.token_losses(tokens[at : at + training.batch_size]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.linalg.vector_norm(gradient))
        limit = training.clip_ppm / PPM
        if norm > limit:
            gradient.mul_(limit / norm)
        optimizer.step()
        losses.append(float(loss.detach()))
    if not np.isfinite(losses).all():
        raise LocalProtocolError("training diverged: a loss is not finite")
    return losses


def learning_rate(training: TrainingSpec, step: int) -> float:
    """Linear warm-up over `warmup_steps` inner steps of the run, then constant."""
    return training.learning_rate_ppb / PPB * min(1.0, (step + 1) / max(1, training.warmup_steps))


def _state_tensors(size: int) -> tuple[TensorSpec, ...]:
    return (TensorSpec("residual", (size,)),)
