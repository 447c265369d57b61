"""Where everything lies: the flat parameter vector, its chunks, and the exact size of a delta (SparseLoCo, arXiv:2508.15706, section 3).

The tensors of the manifest, in manifest order and each in C order, concatenated, are *the flat vector* of a model. Each tensor is cut into
chunks of `codec.chunk` values; its last chunk may be shorter. A chunk of n values keeps k = ceil(n · topk / chunk) of them: `topk` for a
full chunk, at least one for any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.protocol.manifest import CodecSpec, TensorSpec

MAX_CHUNK = 4096
"""A position inside a chunk is written in 12 bits."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Chunks of a model under one codec. `starts`, `lengths`, `kept`: int64 arrays, one entry a chunk; `first`: offset of its first kept value."""

    size: int
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    kept: NDArray[np.int64]
    first: NDArray[np.int64]

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return len(self.starts)

    @property
    def values(self) -> int:
        """How many values a delta holds."""
        return int(self.first[-1] + self.kept[-1])


def tensor_sizes(tensors: Sequence[TensorSpec]) -> list[int]:
    """Number of values in each tensor, in manifest order.

    Raises:
        LocalProtocolError: there is no tensor, or one is empty.
    """
    sizes = [math.prod(tensor.shape) for tensor in tensors]
    if not sizes or min(sizes) < 1:
        raise LocalProtocolError("a model needs at least one tensor, and no empty one")
    return sizes


def check_codec(codec: CodecSpec) -> None:
    """Refuse a codec that this version cannot write.

    Raises:
        LocalProtocolError: the version, chunk, top-k or number of bits is not one of version 1.
    """
    if codec.version != 1 or codec.quantizer_bits != 2:
        raise LocalProtocolError(f"codec version {codec.version} with {codec.quantizer_bits} bits is not supported")
    if not 1 <= codec.topk <= codec.chunk <= MAX_CHUNK:
        raise LocalProtocolError(f"codec keeps {codec.topk} of {codec.chunk} values; 1 ≤ topk ≤ chunk ≤ {MAX_CHUNK} is required")


def plan(tensors: Sequence[TensorSpec], codec: CodecSpec) -> Layout:
    """The layout of `tensors` under `codec` (cached: it depends on the manifest alone).

    Raises:
        LocalProtocolError: the manifest's tensors or codec cannot be used.
    """
    return _plan(tuple(tensor_sizes(tensors)), codec)


@lru_cache(maxsize=8)
def _plan(sizes: tuple[int, ...], codec: CodecSpec) -> Layout:
    check_codec(codec)
    starts: list[NDArray[np.int64]] = []
    lengths: list[NDArray[np.int64]] = []
    offset = 0
    for size in sizes:
        begin = np.arange(0, size, codec.chunk, dtype=np.int64)
        starts.append(begin + offset)
        lengths.append(np.minimum(codec.chunk, size - begin))
        offset += size
    all_lengths = np.concatenate(lengths)
    kept = -(-all_lengths * codec.topk // codec.chunk)
    return Layout(offset, np.concatenate(starts), all_lengths, kept, np.cumsum(kept) - kept)
