"""Two small models. TILED has every kind of chunk: tiles and runs, full and cut on both sides, and a tensor of a single value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nostrain.protocol.manifest import CodecSpec, TensorSpec

TENSORS = (TensorSpec("a.weight", (5, 30)), TensorSpec("b.norm", (7,)), TensorSpec("c.bias", (1,)), TensorSpec("d.weight", (2, 64)))
CODEC = CodecSpec(chunk=64, topk=5)
SIZE = 5 * 30 + 7 + 1 + 2 * 64

TILED = (TensorSpec("a", (9, 10)), TensorSpec("b", (7,)), TensorSpec("c", (1,)), TensorSpec("d", (12, 8)), TensorSpec("e", (2, 5, 7)))
TILED_SIZE = 9 * 10 + 7 + 1 + 12 * 8 + 2 * 5 * 7
ONE_BIT, TWO_BITS = CodecSpec(chunk=64, topk=5, quantizer_bits=1), CodecSpec(chunk=64, topk=5, quantizer_bits=2)


def random_values(seed: int, scale: float = 1e-3, size: int = SIZE) -> NDArray[np.float32]:
    """Normal float32 values of standard deviation `scale`."""
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)
