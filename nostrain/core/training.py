"""The training job of a round, and what is remembered of one that is through: the same with and without delay."""

from __future__ import annotations

import msgspec

from nostrain.core.rows import Run
from nostrain.core.transaction import Transaction
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.jobs import OwnStep, TrainJob, TrainResult
from nostrain.protocol.limits import MAX_TOKENS_PER_S
from nostrain.units import Digest


def train_job(
    tx: Transaction,
    run: Run,
    dataset: DatasetManifest,
    number: int,
    label: Digest,
    *,
    checkpoint: str,
    shard: str,
    seed: str,
    state_in: str | None,
    own: OwnStep | None = None,
) -> TrainJob:
    """The inner steps of round `number`. `label`, of which its files are named, tells it from others of that number."""
    stem = f"{tx.me.work_dir}/{number:05d}-{label[:16]}"
    return TrainJob(
        model=run.manifest.model,
        training=run.manifest.training,
        codec=run.manifest.codec,
        checkpoint=checkpoint,
        shard=shard,
        seed=seed,
        steps_done=(number - 1) * run.manifest.training.inner_steps,
        state_in=state_in,
        delta_out=f"{stem}.delta",
        state_out=f"{stem}.state",
        dtype=dataset.dtype,
        own=own,
    )


def remember(tx: Transaction, trained: TrainResult) -> None:
    """How fast it was, for our next enrolment; and a line for a person. A worker that lost its disk learns less for some rounds, and goes on."""
    tx.put("worker", msgspec.structs.replace(tx.memory, tokens_per_s=speed(trained.tokens, trained.train_ms)))
    losses = f"loss {trained.loss_first_nanonats / 1e9:.3f} → {trained.loss_last_nanonats / 1e9:.3f}"
    took, size = trained.train_ms / 1000, trained.delta.size
    tx.note("info", "trainings", f"trained {trained.tokens} tokens in {took:.1f} s, {losses}, delta {size} bytes")
    for line in trained.lost:
        tx.note("warning", "private_state_lost", f"trained without what earlier rounds left behind: {line}")


def speed(tokens: int, train_ms: int) -> int:
    """Tokens a second, no more than an enrolment may say."""
    return min(tokens * 1000 // max(1, train_ms), MAX_TOKENS_PER_S)
