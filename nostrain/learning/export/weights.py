"""A canonical checkpoint as safetensors of another type, in one file or several with their index, as transformers' `save_pretrained` names them.

Read and written a few MiB at a time: the `safetensors` library writes what is in memory as a whole. The Merkle root is taken on the way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.learning.pretrained import INDEX, SINGLE
from nostrain.protocol.export import FloatType
from nostrain.protocol.manifest import TensorSpec
from nostrain.sparseloco.checkpoint import Leaves, header_bytes, read_checkpoint_untrusted, write_parts
from nostrain.sparseloco.layout import tensor_sizes
from nostrain.units import Digest

Block = NDArray[np.float32]


class _Kind(NamedTuple):
    """A type of values: its name in safetensors, its bytes, and how a block becomes it (None: a value is too large for it)."""

    name: str
    width: int
    convert: Callable[[Block], bytes | None]


def write_weights(checkpoint: Path, tensors: Sequence[TensorSpec], folder: Path, dtype: FloatType, shard_bytes: int) -> Digest:
    """Write the checkpoint's tensors into `folder`; its Merkle root.

    Raises:
        RemoteProtocolError, OSError: as `read_checkpoint_untrusted`; the folder then holds half of it.
        LocalProtocolError: a value is too large for `dtype`.
    """
    kind, leaves = _KINDS[dtype], Leaves(tensors)
    shards = split(tensors, kind.width, shard_bytes)
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)] if shards[1:] else [SINGLE]
    by_tensor = groupby(read_checkpoint_untrusted(checkpoint, tensors), key=lambda pair: pair[0])

    def parts(shard: Sequence[TensorSpec]) -> Iterator[bytes]:
        yield header_bytes(shard, kind.name, kind.width)
        for _ in shard:
            tensor, blocks = next(by_tensor)
            for _, block in blocks:
                leaves.add(block.data.cast("B"))
                if (data := kind.convert(block)) is None:
                    raise LocalProtocolError(f"{checkpoint}: {tensor.name} has a value that is too large for {dtype}")
                yield data

    for name, shard in zip(names, shards, strict=True):
        write_parts(folder / name, parts(shard))
    leaves.end()
    if len(shards) > 1:
        total = kind.width * sum(tensor_sizes(tensors))
        places = {tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_parts(folder / INDEX, [json.dumps(index, indent=2).encode() + b"\n"])
    return leaves.root()


def split(tensors: Sequence[TensorSpec], width: int, shard_bytes: int) -> list[list[TensorSpec]]:
    """The tensors of each file, in order: as many as fit, one at least."""
    shards: list[list[TensorSpec]] = []
    room = 0
    for tensor, size in zip(tensors, tensor_sizes(tensors), strict=True):
        if not shards or width * size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(tensor)
        room -= width * size
    return shards


def _bfloat16(block: Block) -> bytes | None:
    """The upper half of float32, rounded to nearest, ties to even."""
    bits = block.view("<u4")
    rounded = ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype("<u2")
    return None if ((rounded & 0x7F80) == 0x7F80).any() else rounded.tobytes()


def _float16(block: Block) -> bytes | None:
    with np.errstate(over="ignore"):
        rounded = block.astype("<f2")
    return rounded.tobytes() if np.isfinite(rounded).all() else None


_KINDS: Final[dict[FloatType, _Kind]] = {
    "float32": _Kind("F32", 4, lambda block: block.tobytes()),
    "bfloat16": _Kind("BF16", 2, _bfloat16),
    "float16": _Kind("F16", 2, _float16),
}
