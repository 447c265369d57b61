"""H inner AdamW steps over one flat vector (SparseLoCo, arXiv:2508.15706, algorithm 1, lines 4 to 8)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from nostrain.errors import LocalProtocolError
from nostrain.learning.engines.base import ADAM_EPSILON, Windows, WorkerState, learning_rate
from nostrain.protocol.manifest import TrainingSpec
from nostrain.units import PPM


class Trainable(Protocol):
    """What is trained: see `model.TorchModel`."""

    parameters: torch.Tensor

    def attach_gradient(self) -> torch.Tensor: ...
    def training_losses(self, windows: torch.Tensor) -> torch.Tensor: ...


def inner_steps(
    model: Trainable, windows: Windows, training: TrainingSpec, steps_done: int, state: WorkerState, micro_batch: int
) -> list[float]:
    """As `base.Model.inner_steps`."""
    gradient = model.attach_gradient()
    flat = torch.nn.Parameter(model.parameters)
    flat.grad = gradient
    optimizer = _optimizer(flat, training, state)
    tokens = torch.from_numpy(windows).to(gradient.device)
    limit = training.clip_ppm / PPM
    losses = []
    for step, at in enumerate(range(0, len(windows), training.batch_size)):
        optimizer.param_groups[0]["lr"] = learning_rate(training, steps_done + step)
        gradient.zero_()
        losses.append(_accumulate(model, tokens[at : at + training.batch_size], micro_batch))
        norm = float(torch.linalg.vector_norm(gradient))
        if norm > limit:
            gradient.mul_(limit / norm)
        optimizer.step()
    if not np.isfinite(losses).all():
        raise LocalProtocolError("training diverged: a loss is not finite")
    _store_moments(optimizer, flat, state)
    state.steps += len(losses)
    return losses


def _accumulate(model: Trainable, batch: torch.Tensor, micro_batch: int) -> float:
    """Add the gradient of the batch's mean loss to the gradient that is attached, `micro_batch` windows at a time; the loss."""
    total = 0.0
    for part in torch.split(batch, micro_batch or len(batch)):
        loss = model.training_losses(part).mean() * (len(part) / len(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _optimizer(flat: torch.nn.Parameter, training: TrainingSpec, state: WorkerState) -> torch.optim.AdamW:
    """One AdamW over the flat vector, with the moments of `state`: on the CPU their very memory."""
    optimizer = torch.optim.AdamW(
        [flat],
        betas=(training.beta1_ppm / PPM, training.beta2_ppm / PPM),
        eps=ADAM_EPSILON,
        weight_decay=training.weight_decay_ppm / PPM,
        foreach=False,
    )
    optimizer.state[flat] = {
        "step": torch.tensor(float(state.steps)),
        "exp_avg": torch.from_numpy(state.first_moment).to(flat.device),
        "exp_avg_sq": torch.from_numpy(state.second_moment).to(flat.device),
    }
    return optimizer


def _store_moments(optimizer: torch.optim.AdamW, flat: torch.nn.Parameter, state: WorkerState) -> None:
    moments = optimizer.state[flat]
    state.first_moment, state.second_moment = moments["exp_avg"].cpu().numpy(), moments["exp_avg_sq"].cpu().numpy()
