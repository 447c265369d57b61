"""The canonical checkpoint: a safetensors file that one model has exactly one of, and its Merkle root (design section 12, "State identity").

The header is a function of the manifest: `__metadata__` {"format": "pt"}, then the tensors in manifest order, compact JSON, padded with
spaces to a multiple of 8; the data follow in the same order without gaps. So a reader compares the header and never parses a foreign one.
Format: huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.hashes import tagged_hash
from nostrain.protocol.manifest import BlobRef, TensorSpec
from nostrain.sparseloco.layout import tensor_sizes
from nostrain.units import Digest

_LENGTH_BYTES: Final = 8


def write_bytes(path: str | os.PathLike[str], *parts: bytes | memoryview) -> BlobRef:
    """As `write_parts`, of what is at hand."""
    return write_parts(path, parts)


def write_parts(path: str | os.PathLike[str], parts: Iterable[bytes | memoryview]) -> BlobRef:
    """Write `parts` to a temporary name, fsync, rename to `path`, fsync the folder. Returns the digest and size of the whole.

    Raises:
        OSError: the disk is full or the path is unusable; `path` is then as it was.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    digest, size = hashlib.sha256(), 0
    try:
        with temporary.open("wb") as file:
            for part in parts:
                digest.update(part)
                size += len(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return BlobRef(Digest(digest.hexdigest()), size)


def header_bytes(tensors: Sequence[TensorSpec]) -> bytes:
    """The length field and header of the canonical checkpoint of `tensors` (sorted by name)."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor, size in zip(tensors, tensor_sizes(tensors), strict=True):
        entries[tensor.name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + 4 * size]}
        offset += 4 * size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def write_checkpoint(path: str | os.PathLike[str], tensors: Sequence[TensorSpec], flat: NDArray[np.float32]) -> BlobRef:
    """Write the flat float32 vector as canonical checkpoint, atomically; the same values give the same bytes.

    Raises:
        LocalProtocolError: `flat` does not fit the tensors or is not finite.
        OSError: as `write_bytes`.
    """
    if flat.dtype != np.float32 or flat.shape != (sum(tensor_sizes(tensors)),) or not np.isfinite(flat).all():
        raise LocalProtocolError("checkpoint: the values are not the finite flat float32 vector of the manifest's tensors")
    data = np.ascontiguousarray(flat, "<f4").data.cast("B")
    return write_bytes(path, header_bytes(tensors), data)


def load_checkpoint_untrusted(path: str | os.PathLike[str], tensors: Sequence[TensorSpec]) -> NDArray[np.float32]:
    """The flat float32 vector of a checkpoint that somebody else wrote. Size and header are checked before the data are read.

    Raises:
        RemoteProtocolError: the file is not the canonical checkpoint of `tensors`, or a weight is not finite.
        OSError: the file cannot be read.
    """
    expected = header_bytes(tensors)
    with open(path, "rb") as file:
        promised = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if promised != len(expected) - _LENGTH_BYTES:
            raise RemoteProtocolError("checkpoint", f"its header promises {promised} bytes, this run's has {len(expected) - _LENGTH_BYTES}")
        if file.read(promised) != expected[_LENGTH_BYTES:]:
            raise RemoteProtocolError("checkpoint", "its header does not list this run's tensors in canonical form")
        wanted, actual = 4 * sum(tensor_sizes(tensors)), os.fstat(file.fileno()).st_size - len(expected)
        if actual != wanted:
            raise RemoteProtocolError("checkpoint", f"{actual} bytes of data, but this run's tensors have {wanted}")
        flat = np.fromfile(file, "<f4").astype(np.float32, copy=False)
    if not np.isfinite(flat).all():
        raise RemoteProtocolError("checkpoint", "a weight is not finite")
    return flat


def merkle_root(tensors: Sequence[TensorSpec], flat: NDArray[np.float32]) -> Digest:
    """Merkle root over the tensors in manifest order.

    Leaf: H("nostrain/leaf", SHA256(name) ‖ rank as u32 ‖ dimensions as u64 ‖ SHA256(little-endian data)); node: H("nostrain/node", left ‖ right);
    the last of an odd row moves up as it is.
    """
    data = np.ascontiguousarray(flat, "<f4").data.cast("B")
    row, offset = [], 0
    for tensor, size in zip(tensors, tensor_sizes(tensors), strict=True):
        shape = len(tensor.shape).to_bytes(4, "big") + b"".join(side.to_bytes(8, "big") for side in tensor.shape)
        name, values = hashlib.sha256(tensor.name.encode()), hashlib.sha256(data[offset : offset + 4 * size])
        row.append(tagged_hash("nostrain/leaf", name.digest(), shape, values.digest()))
        offset += 4 * size
    while len(row) > 1:
        paired = [tagged_hash("nostrain/node", row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
        row = paired + row[len(paired) * 2 :]
    return Digest(row[0].hex())
