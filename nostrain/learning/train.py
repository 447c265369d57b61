"""A worker's part of a round: H inner steps by an engine, then the compressed pseudo-gradient (SparseLoCo, arXiv:2508.15706, algorithm 1).

Of vectors as long as the model it holds five at most: while it trains, parameters, gradient and AdamW's moments; afterwards the residual in the place of the
gradient. What the training started from is read from the checkpoint a second time, and its pages are the fifth vector until then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from nostrain.errors import RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.learning.data import cut, known, read_shard, training_windows
from nostrain.learning.engines.base import Flat, Moments, Windows
from nostrain.learning.files import LastMade
from nostrain.learning.memory import MicroBatch
from nostrain.learning.resident import ResidentModel
from nostrain.learning.score import nanonats
from nostrain.protocol.jobs import OwnStep, TrainJob, TrainResult
from nostrain.protocol.manifest import BlobRef, TensorSpec
from nostrain.sparseloco.aggregate import cap_weights, outer_step, step_blocks
from nostrain.sparseloco.checkpoint import checkpoint_parts, load_checkpoint_untrusted, map_checkpoint_untrusted
from nostrain.sparseloco.codec import compress
from nostrain.sparseloco.delta import Delta
from nostrain.sparseloco.durable import replace_files
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.sparseloco.rules import Step, plan_step
from nostrain.units import Digest

_BLOCK: Final = 1 << 16


def train(job: TrainJob, resident: ResidentModel, micro: MicroBatch, made: LastMade) -> TrainResult:
    """Run the job; `delta_out` and `state_out` are replaced when both are on the disk. When memory is too little, it begins again with half the windows at once.

    Private files of earlier rounds that are gone or damaged are done without, since nothing brings them back (docs/adr/0059); the result names them.

    Raises:
        RemoteProtocolError: the checkpoint or the shard is unusable.
        LocalProtocolError: training diverged.
        MemoryError: there is too little memory even for one window at a time.
    """
    begin = time.perf_counter()
    shard = read_shard(job.shard, job.dtype)
    windows = known(cut(shard, training_windows(job.seed, len(shard), job.training), job.training.sequence_length), job.model.vocab_size)
    trained = micro.attempt(lambda: micro.size(job.model, job.training), lambda size: _attempt(job, windows, resident, size, made))
    blob, sent = compress(job.tensors, job.codec, trained.total)
    residual = remainder(trained.total, sent)
    replace_files((job.delta_out, [blob]), (job.state_out, _state_parts(trained.moments, residual)))
    delta = BlobRef(Digest(sha256_hex(blob)), len(blob))
    made.keep(delta.sha256, sent)
    losses = trained.losses
    quarter = max(1, len(losses) // 4)
    return TrainResult(
        delta=delta,
        loss_first_nanonats=nanonats(float(np.mean(losses[:quarter]))),
        loss_last_nanonats=nanonats(float(np.mean(losses[-quarter:]))),
        tokens=windows.shape[0] * job.training.sequence_length,
        train_ms=round((trained.at - begin) * 1000),
        encode_ms=round((time.perf_counter() - trained.at) * 1000),
        lost=trained.lost,
    )


@dataclass(frozen=True, slots=True)
class _Trained:
    """What the inner steps lead to: losses, moments, and `total`, the residual · decay + the pseudo-gradient. `at`: when they were through; `lost` as in the result."""

    losses: list[float]
    moments: Moments
    total: Flat
    at: float
    lost: tuple[str, ...]


def _attempt(job: TrainJob, windows: Windows, resident: ResidentModel, size: int, made: LastMade) -> _Trained:
    """With `size` windows at once, from what is on disk. Whatever it holds goes with it when it fails."""
    lost: dict[str, str] = {}
    with resident.at(job.model, job.checkpoint, spoils=True) as model:
        base = map_checkpoint_untrusted(job.checkpoint, job.tensors)
        own = None if job.own is None else _own_step(job, job.own, made, lost)
        if own is not None:
            start = model.read()
            model.write(outer_step(start, *own, out=start))
            del start
        moments = _load_moments(job.state_in, len(base), lost)
        losses = model.inner_steps(windows, job.training, job.steps_done, moments, size)
        at = time.perf_counter()
        total, after, begin = _load_residual(job.state_in, len(base), lost), model.read(), 0
        for before in _start(base, own):
            part = slice(begin, begin + len(before))
            accumulate(total[part], before - after[part], job.codec.error_feedback_ppm)
            begin += len(before)
    return _Trained(losses, moments, total, at, tuple(lost.values()))


def _own_step(job: TrainJob, own: OwnStep, made: LastMade, lost: dict[str, str]) -> tuple[list[Delta], Step] | None:
    """The outer step over one delta of our own; None if that is `lost`."""
    try:
        delta = made.read_untrusted(own.path, job.tensors, job.codec, own.delta)
    except (FileNotFoundError, RemoteProtocolError) as error:
        lost[own.path] = f"our own delta {own.path}: {error}"
        return None
    return [delta], plan_step(cap_weights([delta]), own.outer, own.committed)


def _start(base: Flat, own: tuple[list[Delta], Step] | None) -> Iterator[Flat]:
    """What the training started from, in consecutive parts of some MiB at most."""
    return (base[at : at + _BLOCK] for at in range(0, len(base), _BLOCK)) if own is None else step_blocks(base, *own)


def _state_tensors(size: int) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, (length,)) for name, length in (("exp_avg", size), ("exp_avg_sq", size), ("residual", size), ("step", 1)))


def _load_moments(path: str | None, size: int, lost: dict[str, str]) -> Moments:
    first, second, steps = (_stored(path, size, begin, count, lost) for begin, count in ((0, size), (size, size), (3 * size, 1)))
    return Moments.fresh(size) if first is None or second is None or steps is None else Moments(first, second, int(steps[0]))


def _load_residual(path: str | None, size: int, lost: dict[str, str]) -> Flat:
    stored = _stored(path, size, 2 * size, size, lost)
    return np.zeros(size, np.float32) if stored is None else stored


def _stored(path: str | None, size: int, begin: int, count: int, lost: dict[str, str]) -> Flat | None:
    """Of the worker state of a model of `size` parameters, `count` values from `begin` on; None if there was never one, or it is `lost`."""
    if path is None:
        return None
    try:
        return load_checkpoint_untrusted(path, _state_tensors(size), begin, count)
    except (FileNotFoundError, RemoteProtocolError) as error:
        lost[path] = f"residual and moments {path}: {error}"
        return None


def _state_parts(moments: Moments, residual: Flat) -> list[bytes | memoryview]:
    steps = np.array([moments.steps], np.float32)
    return checkpoint_parts(_state_tensors(len(residual)), moments.first, moments.second, residual, steps)
