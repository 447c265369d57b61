"""H inner AdamW steps over one flat vector (SparseLoCo, arXiv:2508.15706, algorithm 1, lines 4 to 8)."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
import torch

from nostrain.errors import LocalProtocolError
from nostrain.learning.engines.base import ADAM_EPSILON, Moments, Windows, learning_rate
from nostrain.protocol.manifest import TrainingSpec
from nostrain.units import PPM

_BLOCK: Final = 1 << 18
"""Parameters that the optimizer works on at a time: what it needs beside them stays in a processor's cache, and every value comes out the same."""


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
    first, second = (torch.from_numpy(moment).to(gradient.device) for moment in (moments.first, moments.second))
    optimizer = _optimizer(model.parameters, gradient, first, second, training, moments.steps)
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
    moments.first, moments.second, moments.steps = first.cpu().numpy(), second.cpu().numpy(), moments.steps + len(losses)
    return losses


def _accumulate(model: Trainable, batch: torch.Tensor, micro_batch: int) -> float:
    """Add the gradient of the batch's mean loss to the gradient that is attached, `micro_batch` windows at a time; the loss."""
    total = 0.0
    for part in torch.split(batch, micro_batch or len(batch)):
        loss = model.training_losses(part).mean() * (len(part) / len(batch))
        loss.backward()  # type: ignore[no-untyped-call]
        total += float(loss.detach())
    return total


def _optimizer(
    flat: torch.Tensor, gradient: torch.Tensor, first: torch.Tensor, second: torch.Tensor, training: TrainingSpec, steps: int
) -> torch.optim.AdamW:
    """One AdamW over the blocks of the flat vector, after `steps` steps that led to the moments; all four [size] are its own memory."""
    blocks = [torch.nn.Parameter(block) for block in torch.split(flat, _BLOCK)]
    optimizer = torch.optim.AdamW(
        blocks,
        betas=(training.beta1_ppm / PPM, training.beta2_ppm / PPM),
        eps=ADAM_EPSILON,
        weight_decay=training.weight_decay_ppm / PPM,
        foreach=False,
    )
    parts = zip(blocks, *(torch.split(whole, _BLOCK) for whole in (gradient, first, second)), strict=True)
    for block, slope, average, square in parts:
        block.grad = slope
        optimizer.state[block] = {"step": torch.tensor(float(steps)), "exp_avg": average, "exp_avg_sq": square}
    return optimizer
