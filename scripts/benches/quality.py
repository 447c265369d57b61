"""What the quantizer costs in final loss: the same small runs on real text, seed by seed, with each quantizer; differences to plain 12+2-bit coding.

Plain coding is what the reference does (templar, `TopKCompressor` with 4 bins): 12 bits a position, 2 bits a value in four equal bins over ±3σ of
the tensor's kept values, each bin sent as its mean. Chunks, top-k, error feedback and outer step are the same for all, so only values differ.

Two runs that differ in one bit drift apart by about 1 % and back, from round to round. So a run's final loss is the mean of the losses after each
of its last rounds (`--last`); the loss after the very last one is shown beside it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nostrain.learning.data import build_shards, cut, read_shard, training_windows
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions, Moments
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.manifest import CodecSpec, ModelSpec, OuterSpec, TensorSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.aggregate import cap_weights, outer_step
from nostrain.sparseloco.codec import compress
from nostrain.sparseloco.delta import UNIT, Delta
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.sparseloco.layout import plan, tensor_sizes
from nostrain.sparseloco.rules import plan_step

T_95 = dict(
    enumerate(
        (
            12.706,
            4.303,
            3.182,
            2.776,
            2.571,
            2.447,
            2.365,
            2.306,
            2.262,
            2.228,
            2.201,
            2.179,
            2.160,
            2.145,
            2.131,
            2.120,
            2.110,
            2.101,
            2.093,
        ),
        2,
    )
)
"""Student's t, two-sided 95 %, by number of pairs."""


def plain(tensors: tuple[TensorSpec, ...], total: NDArray[np.float32]) -> Delta:
    """The kept values of `total` in four bins a tensor."""
    _, kept = compress(tensors, CodecSpec(quantizer_bits=1), total)
    values = total[kept.indices].astype(np.float64)
    edges = np.searchsorted(kept.indices, np.cumsum([0, *tensor_sizes(tensors)]))
    for begin, end in itertools.pairwise(edges):
        mine = values[begin:end]
        centered = mine - mine.mean()
        width = 6 * centered.std(ddof=1) / 4 if len(mine) > 1 else 0.0
        bins = np.clip(np.rint(centered / (width or 1.0) + 2), 0, 3).astype(np.int64)
        mean = np.bincount(bins, mine, 4) / np.maximum(np.bincount(bins, minlength=4), 1)
        values[begin:end] = mean[bins]
    return replace(kept, units=np.rint(values / UNIT).astype(np.int64))


def model_of(options: argparse.Namespace) -> ModelSpec:
    """The model of the options; without any, the devnet's."""
    return ModelSpec(hidden_size=options.hidden, intermediate_size=3 * options.hidden, num_hidden_layers=options.layers)


def last_losses(quantizer: str, seed: int, options: argparse.Namespace, folder: Path) -> list[float]:
    """Validation loss (nats a byte) of one run after each of its last rounds."""
    spec, codec, outer = model_of(options), CodecSpec(quantizer_bits=2 if quantizer == "two" else 1), OuterSpec()
    training = TrainingSpec(inner_steps=options.steps)
    tensors, flat = model_tensors(spec), initial_parameters(spec, seed)
    shards = [read_shard(str(path)) for path in sorted(folder.glob("shard-*.bin"))]
    states = [(Moments.fresh(len(flat)), np.zeros_like(flat)) for _ in range(options.workers)]
    engine = load_engine("pytorch")
    held_out = read_shard(str(folder / "validation.bin"))
    count = min((len(held_out) - 1) // training.sequence_length, options.windows)
    windows = cut(held_out, np.arange(count) * training.sequence_length, training.sequence_length)
    losses = []
    for turn in range(options.rounds):
        deltas = []
        for worker, (moments, residual) in enumerate(states):
            model = engine.open_model(spec, flat, EngineOptions())
            shard = shards[(seed + turn + worker) % len(shards)]
            offsets = training_windows(f"{seed:016x}{turn:08x}{worker:08x}", len(shard), training)
            model.inner_steps(cut(shard, offsets, training.sequence_length), training, turn * options.steps, moments)
            total = accumulate(residual, flat - model.read(), codec.error_feedback_ppm)
            sent = plain(tensors, total) if quantizer == "plain" else compress(tensors, codec, total)[1]
            remainder(total, sent)
            deltas.append(sent)
        flat = outer_step(flat, deltas, plan_step(cap_weights(deltas), outer, options.workers))
        if turn >= options.rounds - options.last:
            losses.append(float(engine.open_model(spec, flat, EngineOptions()).window_losses(windows, 32).mean()))
    return losses


def report(name: str, ours: list[list[float]], plain: list[list[float]]) -> None:
    """Print mean losses and the paired difference with its interval, of the mean over the last rounds and of the very last."""
    for label, pick in (("last rounds", statistics.mean), ("last round", lambda losses: losses[-1])):
        mine, base = [pick(losses) for losses in ours], [pick(losses) for losses in plain]
        relative = [100 * (one / other - 1) for one, other in zip(mine, base, strict=True)]
        reach = T_95[len(relative)] * statistics.stdev(relative) / math.sqrt(len(relative))
        print(
            f"{name:<6} {label:<12} mean {statistics.mean(mine):.4f}, plain {statistics.mean(base):.4f}:"
            f" {statistics.mean(relative):+.3f} % ± {reach:.3f} against plain 12+2 (95 %, {len(relative)} pairs)",
            flush=True,
        )


def main() -> None:
    """Print final losses and paired differences; with --json, write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 21))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--last", type=int, default=5, help="rounds at the end whose losses are averaged")
    parser.add_argument("--windows", type=int, default=1024, help="held-out windows of 128 tokens, the same after every round")
    parser.add_argument("--hidden", type=int, default=128, help="width of the model; 128 and 4 layers: the devnet's")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--text", type=Path, default=None, help="folder of text files; default: this Python's library")
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    losses: dict[str, list[list[float]]] = {"plain": [], "sign": [], "two": []}
    with tempfile.TemporaryDirectory() as name:
        build_shards(options.text and str(options.text), 1, 1 << 20, 1 << 18, Path(name))
        size = plan(model_tensors(model_of(options)), CodecSpec()).size
        print(
            f"{size:,} parameters, {options.workers} workers, {options.steps} inner steps × {options.rounds} rounds, {options.seeds} seeds"
        )
        for seed in range(options.seeds):
            for quantizer, found in losses.items():
                found.append(last_losses(quantizer, seed, options, Path(name)))
                print(f"seed {seed}  {quantizer:<6} {' '.join(f'{loss:.5f}' for loss in found[-1])} nat a byte", flush=True)
            if options.json:
                options.json.write_text(json.dumps(losses, indent=1) + "\n")
            if seed:
                report("sign", losses["sign"], losses["plain"])
                report("two", losses["two"], losses["plain"])


if __name__ == "__main__":
    main()
