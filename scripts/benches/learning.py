"""What the way of working together costs in loss: the same model, text and tokens, trained data-parallel, by DiLoCo, FedAvg and SparseLoCo.

A *cell* is one way with its numbers; `--list` shows them. Every cell of a seed sees the same windows in the same order. SparseLoCo's cells
differ in quantizer, rule of the outer step with α swept, and error feedback. Results are kept in `--cache` as they come, so that what was
interrupted goes on, and `--cells` (a regular expression) and `--seeds` may ask for more later. Sources: DiLoCo, arXiv:2311.08105 (Nesterov,
outer rate 0.7, momentum 0.9); FedAvg, arXiv:1602.05629; SparseLoCo, arXiv:2508.15706.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from _plot import curves_svg
from numpy.typing import NDArray
from quality import plain

from nostrain.learning.data import build_shards, cut, read_shard, training_windows
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions, Model, Moments
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.manifest import CodecSpec, ModelSpec, OuterSpec, Rule, TrainingSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.aggregate import cap_weights, outer_step
from nostrain.sparseloco.codec import compress
from nostrain.sparseloco.delta import UNIT, Delta
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.sparseloco.rules import plan_step
from nostrain.units import PPM, Ppm

Flat = NDArray[np.float32]
Quantizer = Literal["none", "plain", "sign", "two"]


@dataclass(frozen=True)
class Sparse:
    """A SparseLoCo cell. `none` sends the kept values as they are, `plain` in the reference's four bins."""

    quantizer: Quantizer = "two"
    rule: Rule = "mean_r"
    alpha: float = 2.0
    parameter: int = 0
    feedback: bool = True

    def __str__(self) -> str:
        number = f"({self.parameter})" if self.parameter else ""
        return f"sparseloco {self.quantizer} {self.rule}{number} α={self.alpha:g}{'' if self.feedback else ' no feedback'}"

    @property
    def outer(self) -> OuterSpec:
        """As a manifest says it."""
        return OuterSpec(self.rule, Ppm(round(self.alpha * PPM)), self.parameter)


@dataclass(frozen=True)
class Dense:
    """A cell with whole pseudo-gradients and Nesterov's outer step: DiLoCo, or, with rate 1 and no momentum, FedAvg."""

    rate: float = 0.7
    momentum: float = 0.9

    def __str__(self) -> str:
        return "diloco" if self == Dense() else "fedavg" if self == Dense(1, 0) else f"diloco rate={self.rate:g} momentum={self.momentum:g}"


RULES: list[tuple[Rule, int, tuple[float, ...]]] = [
    ("mean_r", 0, (1, 2, 3, 4)),
    ("mean_contributors", 0, (0.5, 0.75, 1, 1.5)),
    ("shrink", 1, (1, 1.5, 2, 3)),
    ("sign", 600_000, (1, 2, 3, 4)),
    ("trim", 1, (0.5, 0.75, 1, 1.5)),
]


def all_cells() -> dict[str, Sparse | Dense | None]:
    """Every cell by name, the essential ones first; None: data-parallel."""
    dense = [Dense(), Dense(1, 0), *(Dense(rate, momentum) for rate, momentum in ((0.4, 0.9), (0.2, 0.9), (0.7, 0.5), (1, 0.5)))]
    sparse = [Sparse(), Sparse(feedback=False), *(Sparse(quantizer) for quantizer in ("none", "sign", "plain"))]
    sparse += [Sparse("two", rule, alpha, parameter) for rule, parameter, alphas in RULES for alpha in alphas]
    sparse += [Sparse(alpha=4, feedback=False)]
    named: dict[str, Sparse | Dense | None] = {"ddp": None}
    return named | {str(cell): cell for cell in dense} | {str(cell): cell for cell in sparse}


class Run:
    """One seed's data and first model."""

    def __init__(self, options: argparse.Namespace, folder: Path, seed: int) -> None:
        self.options, self.seed = options, seed
        self.spec = ModelSpec(hidden_size=options.hidden, intermediate_size=3 * options.hidden, num_hidden_layers=options.layers)
        self.training = TrainingSpec(inner_steps=options.steps)
        self.tensors = model_tensors(self.spec)
        self.shards = [read_shard(str(path)) for path in sorted(folder.glob("shard-*.bin"))]
        held_out, length = read_shard(str(folder / "validation.bin")), self.training.sequence_length
        self.held_out = cut(held_out, np.arange(min((len(held_out) - 1) // length, 512)) * length, length)
        self.engine = load_engine("pytorch")
        self.curve: list[tuple[int, float]] = []

    def model(self, flat: Flat) -> Model:
        return self.engine.open_model(self.spec, flat, EngineOptions())

    def windows(self, turn: int, worker: int) -> NDArray[np.int64]:
        """What a worker trains on in a round: int64 [H · batch, n + 1]."""
        shard = self.shards[(self.seed + turn + worker) % len(self.shards)]
        offsets = training_windows(f"{self.seed:016x}{turn:08x}{worker:08x}", len(shard), self.training)
        return cut(shard, offsets, self.training.sequence_length)

    def note(self, turn: int, flat: Flat) -> None:
        """Measure the loss (nats a byte) after a round: on a part of the held-out text, at the end on all of it."""
        last = turn + 1 == self.options.rounds
        if last or turn % 4 == 3:
            windows = self.held_out if last else self.held_out[:96]
            self.curve.append((turn + 1, float(self.model(flat).window_losses(windows, 32).mean())))

    def pseudo_gradients(self, turn: int, flat: Flat, every: list[Moments]) -> list[Flat]:
        """What every worker's inner steps of a round changed, θ before less θ after."""
        found = []
        for worker, moments in enumerate(every):
            model = self.model(flat)
            model.inner_steps(self.windows(turn, worker), self.training, turn * self.training.inner_steps, moments)
            found.append(flat - model.read())
        return found

    def data_parallel(self) -> None:
        """AdamW on the mean gradient of all workers after every step: one batch of all their batches."""
        count, batch = self.options.workers, self.training.batch_size
        training = replace_batch(self.training, count * batch)
        flat = initial_parameters(self.spec, self.seed)
        moments = Moments.fresh(len(flat))
        for turn in range(self.options.rounds):
            parts = [self.windows(turn, worker).reshape(training.inner_steps, batch, -1) for worker in range(count)]
            model = self.model(flat)
            joined = np.concatenate(parts, axis=1)
            model.inner_steps(joined.reshape(-1, joined.shape[-1]), training, turn * training.inner_steps, moments)
            flat = model.read().copy()
            self.note(turn, flat)

    def dense(self, outer: Callable[[Flat, Flat], Flat]) -> None:
        """Whole pseudo-gradients; `outer` makes the next θ of θ and their mean."""
        flat = initial_parameters(self.spec, self.seed)
        every = [Moments.fresh(len(flat)) for _ in range(self.options.workers)]
        for turn in range(self.options.rounds):
            flat = outer(flat, np.mean(self.pseudo_gradients(turn, flat, every), axis=0, dtype=np.float32))
            self.note(turn, flat)

    def sparse(self, cell: Sparse) -> None:
        """SparseLoCo."""
        codec = CodecSpec(quantizer_bits=2 if cell.quantizer == "two" else 1)
        decay = codec.error_feedback_ppm if cell.feedback else Ppm(0)
        flat = initial_parameters(self.spec, self.seed)
        every = [Moments.fresh(len(flat)) for _ in range(self.options.workers)]
        residuals = [np.zeros_like(flat) for _ in every]
        for turn in range(self.options.rounds):
            deltas = []
            for residual, found in zip(residuals, self.pseudo_gradients(turn, flat, every), strict=True):
                total = accumulate(residual, found, decay)
                sent = self.send(cell.quantizer, codec, total)
                remainder(total, sent)
                deltas.append(sent)
            flat = outer_step(flat, deltas, plan_step(cap_weights(deltas), cell.outer, len(deltas)))
            self.note(turn, flat)

    def send(self, quantizer: Quantizer, codec: CodecSpec, total: Flat) -> Delta:
        """What of `total` is sent."""
        if quantizer == "plain":
            return plain(self.tensors, total)
        sent = compress(self.tensors, codec, total)[1]
        if quantizer == "none":
            return replace(sent, units=np.rint(total[sent.indices].astype(np.float64) / UNIT).astype(np.int64))
        return sent


def replace_batch(training: TrainingSpec, batch: int) -> TrainingSpec:
    """`training` with another batch."""
    fields = {name: getattr(training, name) for name in training.__struct_fields__}
    return TrainingSpec(**(fields | {"batch_size": batch}))


def nesterov(cell: Dense) -> Callable[[Flat, Flat], Flat]:
    """DiLoCo's outer optimizer."""
    rate, momentum = np.float32(cell.rate), np.float32(cell.momentum)
    velocity: list[Flat] = []

    def outer(flat: Flat, mean: Flat) -> Flat:
        velocity[:] = [momentum * velocity[0] + mean if velocity else mean.copy()]
        return (flat - rate * (mean + momentum * velocity[0])).astype(np.float32, copy=False)

    return outer


def measure(cell: Sparse | Dense | None, run: Run) -> dict[str, Any]:
    """Run one cell; its curve, final loss and the seconds that it took."""
    begin = time.perf_counter()
    match cell:
        case Sparse():
            run.sparse(cell)
        case Dense():
            run.dense(nesterov(cell))
        case None:
            run.data_parallel()
    return {"loss": run.curve[-1][1], "curve": run.curve, "seconds": round(time.perf_counter() - begin, 1)}


def table(results: dict[str, dict[str, Any]], names: list[str]) -> None:
    """Mean final losses over the seeds that each cell has, and the difference to DiLoCo over the seeds that both have."""
    print(f"{'cell':<48} {'nat a byte':>10} {'seeds':>6} {'to DiLoCo':>10}   by seed")
    base = {seed: run["loss"] for seed, run in results.get("diloco", {}).items()}
    for name in names:
        losses = {seed: run["loss"] for seed, run in sorted(results.get(name, {}).items())}
        if not losses:
            print(f"{name:<48} {'–':>10}")
            continue
        both = [100 * (loss / base[seed] - 1) for seed, loss in losses.items() if seed in base]
        relative = f"{statistics.mean(both):+9.2f}%" if both else " " * 10
        print(
            f"{name:<48} {statistics.mean(losses.values()):10.4f} {len(losses):6} {relative}   {' '.join(f'{x:.4f}' for x in losses.values())}"
        )


def main() -> None:
    """Run what is missing, print the table, write the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default=".*", help="regular expression that a cell's whole name must match")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--text", default=None, help="folder of text files; default: this Python's library")
    parser.add_argument("--cache", type=Path, default=Path("learning.json"), help="JSON with every run; read and added to")
    parser.add_argument("--plot", type=Path, default=None, help="SVG of the chosen cells' curves")
    parser.add_argument("--list", action="store_true", help="show the cells and what is cached, run nothing")
    options = parser.parse_args()
    cells = all_cells()
    chosen = [name for name in cells if re.fullmatch(options.cells, name)]
    conditions = {key: getattr(options, key) for key in ("rounds", "steps", "workers", "hidden", "layers", "text")}
    cache: dict[str, Any] = json.loads(options.cache.read_text()) if options.cache.exists() else {}
    if cache.setdefault("conditions", conditions) != conditions:
        parser.error(f"{options.cache} is of other conditions: {cache['conditions']}")
    results: dict[str, dict[str, Any]] = cache.setdefault("runs", {})
    with tempfile.TemporaryDirectory() as folder:
        if not options.list:
            build_shards(options.text, 1, 1 << 20, 1 << 18, Path(folder))
        missing = [(seed, name) for seed in range(options.seeds) for name in chosen if str(seed) not in results.get(name, {})]
        for seed, name in [] if options.list else missing:
            found = measure(cells[name], Run(options, Path(folder), seed))
            results.setdefault(name, {})[str(seed)] = found
            options.cache.write_text(json.dumps(cache, indent=1, ensure_ascii=False) + "\n")
            print(f"seed {seed}  {name:<48} {found['loss']:.4f} nat a byte  {found['seconds']:.0f} s", flush=True)
    table(results, chosen)
    if options.plot:
        mean = {name: [(at, statistics.mean(losses)) for (at, *_), losses in by_turn(results[name])] for name in chosen if name in results}
        options.plot.write_text(curves_svg(mean, "rounds", "held-out loss, nat a byte"))


def by_turn(runs: dict[str, Any]) -> list[tuple[tuple[int], list[float]]]:
    """The curves of several seeds as one: of every measured round its losses."""
    columns = zip(*(run["curve"] for run in runs.values()), strict=True)
    return [((column[0][0],), [loss for _, loss in column]) for column in columns]


if __name__ == "__main__":
    main()
