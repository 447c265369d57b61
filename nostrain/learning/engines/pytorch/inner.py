"""H inner AdamW steps over one flat vector (SparseLoCo, arXiv:2508.15706, algorithm 1, lines 4 to 8)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from nostrain.errors import LocalProtocolError
from nostrain.learning.engines.base import ADAM_EPSILON, Moments, Windows, learning_rate
from nostrain.protocol.manifest import TrainingSpec
from nostrain.units import PPM


class Trainable(Protocol):
    """What is trained: see `model.TorchModel`."""

    parameters: torch.Tensor

    def attach_gradient(self) -> torch.Tensor: ...
    def training_losses(self, windows: torch.Tensor) -> torch.Tensor: ...


def inner_steps(
    model: Trainable, windows: Windows, training: TrainingSpec, steps_done: int, moments: Moments, micro_batch: int
) -> list[float]:
    """As `base.Model.inner_steps`."""
    gradient = model.attach_gradient()
    flat = torch.nn.Parameter(model.parameters)
    flat.grad = gradient
    first, second = (torch.from_numpy(moment).to(gradient.device) for moment in (moments.first, moments.second))
    optimizer = _optimizer(flat, first, second, training, moments.steps)
    tokens = torch.from_numpy(windows).to(gradient.device)
    limit = training.clip_ppm / PPM
    parts: list[torch.Tensor] = []
    batches = torch.split(tokens, training.batch_size)
    for step, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = learning_rate(training, steps_done + step)
        gradient.zero_()
        parts.append(_accumulate(model, batch, micro_batch))
        gradient.mul_(torch.clamp(limit / torch.linalg.vector_norm(gradient), max=1.0))
        optimizer.step()
    # Only now does anybody wait for the device: until here it is given one step after the other.
    losses: list[float] = torch.stack(parts).tolist()
    if not np.isfinite(losses).all():
        raise LocalProtocolError("training diverged: a loss is not finite")
    moments.first, moments.second, moments.steps = first.cpu().numpy(), second.cpu().numpy(), moments.steps + len(losses)
    return losses


def _accumulate(model: Trainable, batch: torch.Tensor, micro_batch: int) -> torch.Tensor:
    """Add the gradient of the batch's mean loss to the gradient that is attached, `micro_batch` windows at a time; the loss, on the device."""
    total = torch.zeros((), device=batch.device)
    for part in torch.split(batch, micro_batch or len(batch)):
        loss = model.training_losses(part).mean() * (len(part) / len(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.detach()
    return total


def _optimizer(
    flat: torch.nn.Parameter, first: torch.Tensor, second: torch.Tensor, training: TrainingSpec, steps: int
) -> torch.optim.AdamW:
    """One AdamW over the flat vector, after `steps` steps that led to the moments, whose memory is its own. Fused: in one pass, and nothing beside them."""
    optimizer = torch.optim.AdamW(
        [flat],
        betas=(training.beta1_ppm / PPM, training.beta2_ppm / PPM),
        eps=ADAM_EPSILON,
        weight_decay=training.weight_decay_ppm / PPM,
        fused=True,
    )
    optimizer.state[flat] = {"step": torch.tensor(float(steps), device=flat.device), "exp_avg": first, "exp_avg_sq": second}
    return optimizer
