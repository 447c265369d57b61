"""A small model whose tensors exercise every kind of chunk: full ones, a short last one, a tensor shorter than a chunk, a single value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nostrain.protocol.manifest import CodecSpec, TensorSpec

TENSORS = (TensorSpec("a.weight", (5, 30)), TensorSpec("b.norm", (7,)), TensorSpec("c.bias", (1,)), TensorSpec("d.weight", (2, 64)))
CODEC = CodecSpec(chunk=64, topk=5)
SIZE = 5 * 30 + 7 + 1 + 2 * 64


def random_values(seed: int, scale: float = 1e-3, size: int = SIZE) -> NDArray[np.float32]:
    """Normal float32 values of standard deviation `scale`."""
    return (np.random.default_rng(seed).standard_normal(size) * scale).astype(np.float32)
