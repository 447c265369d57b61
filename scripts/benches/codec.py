"""The delta codec: error feedback + encode, decode, exact aggregation of 20 workers, beside templar's compressor if it is at hand.

`--reference FILE` is src/tplr/compress.py of a checkout of tplr-ai/templar (MIT), brought by hand and kept outside of this repository; it needs
`einops`. Its `import tplr`, only for a log line, is satisfied by an empty module. Without it, bare torch operations stand beside ours.
`--values FILE` takes a real pseudo-gradient (`scripts/bench ratio --size 100m --save FILE`); otherwise the values are drawn at random.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
import tracemalloc
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _side_by_side import side_by_side
from numpy.typing import NDArray
from ratio import SIZES

from nostrain.learning.initial import initial_parameters
from nostrain.protocol.manifest import CodecSpec, OuterSpec, TensorSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.aggregate import caps_of, outer_step
from nostrain.sparseloco.codec import compress, decode_untrusted
from nostrain.sparseloco.compiled import kernels_for
from nostrain.sparseloco.delta import Delta
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.sparseloco.layout import tensor_sizes
from nostrain.sparseloco.rules import plan_step
from nostrain.sparseloco.stack import Stack
from nostrain.units import Ppm

DECAY = Ppm(950_000)


class Ours:
    """The codec over flat vectors."""

    def __init__(self, tensors: tuple[TensorSpec, ...], values: NDArray[np.float32], compiled: bool) -> None:
        self.tensors, self.values, self.compiled, self.codec = tensors, values, compiled, CodecSpec()
        self.residual = np.zeros_like(values)
        self.blob = compress(tensors, self.codec, values, compiled=compiled)[0]
        self.stack = self.read()
        self.theta = values.copy()

    def encode(self) -> None:
        total = accumulate(self.residual, self.values, DECAY)
        self.blob, sent = compress(self.tensors, self.codec, total, compiled=self.compiled)
        self.residual = remainder(total, sent)

    def decode(self) -> Delta:
        return decode_untrusted(self.blob, self.tensors, self.codec, compiled=self.compiled)

    def read(self) -> Stack:
        stack = Stack(self.tensors, self.codec, 20, compiled=self.compiled)
        for at in range(20):
            stack.read_untrusted(at, self.blob)
        return stack

    def aggregate(self) -> None:
        outer_step(self.theta, self.stack, plan_step(caps_of(self.stack.squared_norms), OuterSpec(), 20), out=self.theta)

    def decode_and_aggregate(self) -> None:
        del self.stack
        self.stack = self.read()
        self.aggregate()


class Reference:
    """What templar's miner and validator do with each tensor (neurons.py, `prepare_gradient_dict`, `outer_step`), with its hyperparameters."""

    def __init__(self, module: Any, tensors: tuple[TensorSpec, ...], values: NDArray[np.float32]) -> None:
        parts = np.split(values, np.cumsum(tensor_sizes(tensors))[:-1])
        self.gradients = [torch.from_numpy(part.reshape(tensor.shape)) for tensor, part in zip(tensors, parts, strict=True)]
        self.feedback = [torch.zeros_like(gradient) for gradient in self.gradients]
        holder = torch.nn.ParameterList([torch.nn.Parameter(gradient) for gradient in self.gradients])
        self.transformer = module.ChunkingTransformer(holder, target_chunk=64)
        self.compressor = module.TopKCompressor(use_quantization=True, quantization_bins=4, quantization_range=6)
        self.packed: list[Any] = []
        self.theta = [gradient.clone() for gradient in self.gradients]
        self.encode()

    @torch.no_grad()
    def encode(self) -> None:
        self.packed = []
        for feedback, gradient in zip(self.feedback, self.gradients, strict=True):
            feedback.mul_(DECAY / 1e6).add_(gradient)
            packed = self.compressor.compress(self.transformer.encode(feedback), 64)
            feedback.sub_(self.transformer.decode(self.compressor.decompress(feedback, *packed)))
            self.packed.append(packed)

    @torch.no_grad()
    def decode(self) -> list[torch.Tensor]:
        return [
            self.transformer.decode(self.compressor.decompress(gradient, *packed))
            for gradient, packed in zip(self.gradients, self.packed, strict=True)
        ]

    @torch.no_grad()
    def aggregate(self) -> None:
        for theta, (index, value, shape, total, quantization) in zip(self.theta, self.packed, strict=True):
            mean = self.compressor.batch_decompress(theta, [index] * 20, [value] * 20, shape, total, [quantization] * 20)
            theta.sub_(self.transformer.decode(mean), alpha=1.0)

    def size(self) -> int:
        """Bytes of the indices, codes and lookup tables that it ships."""
        return sum(index.nbytes + value.nbytes + quantization[3].nbytes for index, value, _, _, quantization in self.packed)


def load_reference(path: Path) -> Any:
    """The module in the file `path`."""
    sys.modules.setdefault("tplr", types.ModuleType("tplr"))
    spec = importlib.util.spec_from_file_location("templar_compress", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Bare:
    """Top-k, gather and scatter of torch: no error feedback, no quantizer, no container."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self.grid = torch.from_numpy(values[: len(values) // 4096 * 4096]).view(-1, 4096)
        self.encode()

    def encode(self) -> None:
        self.indices = self.grid.abs().topk(64).indices
        self.kept = self.grid.gather(1, self.indices)

    def decode(self) -> torch.Tensor:
        return torch.zeros_like(self.grid).scatter_(1, self.indices, self.kept)

    def aggregate(self) -> None:
        total = torch.zeros_like(self.grid)
        for _ in range(20):
            total.scatter_add_(1, self.indices, self.kept)
        self.grid - 0.05 * total


def peak(work: Callable[[], object]) -> int:
    """The most bytes that `work` held at a time."""
    tracemalloc.start()
    work()
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return held


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="100m")
    parser.add_argument("--values", type=Path, default=None)
    parser.add_argument("--reference", type=Path, default=None)
    parser.add_argument("--numpy", action="store_true", help="measure without numba")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tensors, values = model_tensors(SIZES[options.size]), initial_parameters(SIZES[options.size], 1)
    if options.values:
        values = np.load(options.values)
    else:
        values = (np.random.default_rng(0).standard_normal(len(values)) * 1e-3).astype(np.float32)
    compiled = not options.numpy and kernels_for(len(values)) is not None
    ours = Ours(tensors, values, compiled)
    ours.encode()
    print(
        f"{len(values):,} parameters, seconds of one core, {'numba' if compiled else 'numpy'}; blob {len(ours.blob):,} bytes, {values.nbytes / len(ours.blob):.1f}× below float32"
    )
    for label, work in (
        ("error feedback + encode beyond the residual, in which a worker's pseudo-gradient is added up block by block", ours.encode),
        ("decode", ours.decode),
        ("decode and aggregate 20 workers beyond θ", ours.decode_and_aggregate),
    ):
        print(f"memory of {label}: at most {peak(work) / values.nbytes:.2f}× the parameters")
    other: Reference | Bare
    if options.reference:
        reference = Reference(load_reference(options.reference), tensors, values)
        print(f"templar ships {reference.size():,} bytes, {values.nbytes / reference.size():.1f}× below float32")
        other, name = reference, "templar"
    else:
        other, name = Bare(values), "torch, bare"
    pairs = [
        ("error feedback + encode", ours.encode, other.encode),
        ("decode, checked", ours.decode, other.decode),
        ("aggregate 20 decoded workers", ours.aggregate, other.aggregate),
        ("decode and aggregate 20 workers", ours.decode_and_aggregate, other.aggregate),
    ]
    for label, mine, theirs in pairs:
        side_by_side(
            {f"nostrain: {label}": mine, f"{name}: the same": theirs},
            rounds=options.rounds,
            units=len(values),
            unit="parameters",
            clock=time.process_time,
        )


if __name__ == "__main__":
    main()
