"""How small a delta is: the codec on pseudo-gradients of a real model, trained here on real text, with error feedback over a few rounds.

`--save FILE` keeps the last accumulated pseudo-gradient, `--load FILE` takes one instead of training; `scripts/bench codec --values FILE` measures speed on it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nostrain.learning.data import build_shards, cut, read_shard, training_windows
from nostrain.learning.engines import load_engine
from nostrain.learning.engines.base import EngineOptions, Moments
from nostrain.learning.initial import initial_parameters
from nostrain.protocol.manifest import CodecSpec, ModelSpec, TensorSpec, TrainingSpec
from nostrain.protocol.tensors import model_tensors
from nostrain.sparseloco.codec import compress, decode_untrusted, encode
from nostrain.sparseloco.feedback import accumulate, remainder
from nostrain.sparseloco.layout import plan, tensor_sizes

SIZES = {
    "tiny": ModelSpec(),
    "100m": ModelSpec(hidden_size=768, intermediate_size=2048, num_hidden_layers=15, num_attention_heads=12, num_key_value_heads=12),
}
RATES = {"tiny": 3_000_000, "100m": 600_000}


def pseudo_gradient(size: str, steps: int, rounds: int) -> tuple[tuple[TensorSpec, ...], NDArray[np.float32]]:
    """One worker's residual plus pseudo-gradient after `rounds` rounds of `steps` inner steps."""
    tensors, flat = model_tensors(SIZES[size]), initial_parameters(SIZES[size], 1)
    training = TrainingSpec(inner_steps=steps, learning_rate_ppb=RATES[size], warmup_steps=20)
    engine, moments, residual = load_engine("pytorch"), Moments.fresh(len(flat)), np.zeros_like(flat)
    with tempfile.TemporaryDirectory() as name:
        build_shards(None, 1, 1 << 20, 1 << 18, Path(name))
        shards = [read_shard(str(path)) for path in sorted(Path(name).glob("shard-*.bin"))]
        for turn in range(rounds):
            shard = shards[turn % len(shards)]
            windows = cut(shard, training_windows(f"{turn:016x}", len(shard), training), training.sequence_length)
            model = engine.open_model(SIZES[size], flat, EngineOptions())
            losses = model.inner_steps(windows, training, turn * steps, moments)
            print(f"round {turn + 1}: loss {losses[0]:.3f} → {losses[-1]:.3f}", flush=True)
            accumulate(residual, flat - model.read(), CodecSpec().error_feedback_ppm)
            if turn + 1 < rounds:
                _, sent = compress(tensors, CodecSpec(), residual)
                flat[sent.indices] -= sent.values()
                remainder(residual, sent)
    return tensors, residual


def kind(tensor: TensorSpec) -> str:
    """What the tensor is in its layer."""
    parts = tensor.name.split(".")
    return parts[-2] if len(tensor.shape) == 2 else "norms"


def main() -> None:
    """Print the ratios to float32 and bfloat16, of the whole delta and of every kind of tensor by itself."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path, default=None)
    parser.add_argument("--load", type=Path, default=None)
    options = parser.parse_args()
    tensors, flat = (
        pseudo_gradient(options.size, options.steps, options.rounds) if options.load is None else load(options.load, options.size)
    )
    if options.save:
        np.save(options.save, flat)
    kinds: dict[str, list[tuple[TensorSpec, NDArray[np.float32]]]] = defaultdict(list)
    for tensor, part in zip(tensors, np.split(flat, np.cumsum(tensor_sizes(tensors))[:-1]), strict=True):
        kinds[kind(tensor)].append((tensor, part))
    for bits in (1, 2):
        codec = CodecSpec(quantizer_bits=bits)
        blob = encode(tensors, codec, flat)
        delta = decode_untrusted(blob, tensors, codec)
        error = float(
            np.square(flat[delta.indices].astype(np.float64) - delta.values()).sum()
            / np.square(flat[delta.indices].astype(np.float64)).sum()
        )
        print(
            f"{bits} magnitude{'s' if bits == 2 else ''} a chunk: {len(flat):,} parameters in {len(blob):,} bytes, {8 * len(blob) / plan(tensors, codec).values:.3f} bits a value, squared error of the kept values {error:.4f}"
        )
        print(f"  {'all':<14}{len(flat):>12,}  {4 * len(flat) / len(blob):7.1f}× float32 {2 * len(flat) / len(blob):7.1f}× bfloat16")
        for name, members in sorted(kinds.items()):
            mine = np.concatenate([part for _, part in members])
            size = len(encode([tensor for tensor, _ in members], codec, mine))
            print(f"  {name:<14}{len(mine):>12,}  {4 * len(mine) / size:7.1f}× float32 {2 * len(mine) / size:7.1f}× bfloat16")


def load(path: Path, size: str) -> tuple[tuple[TensorSpec, ...], NDArray[np.float32]]:
    """What `--save` wrote for a model of this size."""
    return model_tensors(SIZES[size]), np.load(path)


if __name__ == "__main__":
    main()
