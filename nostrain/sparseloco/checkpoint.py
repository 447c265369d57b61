"""The canonical checkpoint: a safetensors file that one model has exactly one of, and its Merkle root (design section 12, "State identity").

The header is a function of the manifest: `__metadata__` {"format": "pt"}, then the tensors in manifest order, compact JSON, padded with
spaces to a multiple of 8; the data follow in the same order without gaps. So a reader compares the header and never parses a foreign one.
Format: huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.hashes import tagged_hash
from nostrain.protocol.manifest import BlobRef, TensorSpec
from nostrain.sparseloco.durable import replace_file
from nostrain.sparseloco.layout import tensor_sizes
from nostrain.units import Digest

_LENGTH_BYTES: Final = 8
_BLOCK_BYTES: Final = 4 << 20


def write_bytes(path: str | os.PathLike[str], *parts: bytes | memoryview) -> BlobRef:
    """As `write_parts`, of what is at hand."""
    return write_parts(path, parts)


def write_parts(path: str | os.PathLike[str], parts: Iterable[bytes | memoryview]) -> BlobRef:
    """As `durable.replace_file`. Returns the digest and size of the whole.

    Raises:
        OSError: as there.
    """
    digest, size = hashlib.sha256(), 0

    def counted() -> Iterator[bytes | memoryview]:
        nonlocal size
        for part in parts:
            digest.update(part)
            size += len(part)
            yield part

    replace_file(path, counted())
    return BlobRef(Digest(digest.hexdigest()), size)


def header_bytes(tensors: Sequence[TensorSpec], dtype: str = "F32", width: int = 4) -> bytes:
    """The length field and header of the canonical checkpoint of `tensors` (sorted by name); or of a file with values of another type and width."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor, size in zip(tensors, tensor_sizes(tensors), strict=True):
        entries[tensor.name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + width * size]}
        offset += width * size
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text


def write_checkpoint(path: str | os.PathLike[str], tensors: Sequence[TensorSpec], flat: NDArray[np.float32]) -> BlobRef:
    """Write the flat float32 vector as canonical checkpoint, atomically; the same values give the same bytes.

    Raises:
        LocalProtocolError: `flat` does not fit the tensors or is not finite.
        OSError: as `write_bytes`.
    """
    return write_parts(path, checkpoint_parts(tensors, flat))


def checkpoint_parts(tensors: Sequence[TensorSpec], *parts: NDArray[np.float32]) -> list[bytes | memoryview]:
    """The bytes of the canonical checkpoint of the flat float32 vector that `parts` are in turn; they are not copied.

    Raises:
        LocalProtocolError: they do not fit the tensors or are not finite.
    """
    if sum(part.size for part in parts) != sum(tensor_sizes(tensors)):
        raise LocalProtocolError("checkpoint: the values are not as many as those of the tensors")
    if any(part.dtype != np.float32 or part.ndim != 1 or not _all_finite(part) for part in parts):
        raise LocalProtocolError("checkpoint: the values are not the finite flat float32 vector of the tensors")
    return [header_bytes(tensors), *(np.ascontiguousarray(part, "<f4").data.cast("B") for part in parts)]


def stream_checkpoint(
    path: str | os.PathLike[str], tensors: Sequence[TensorSpec], parts: Iterable[NDArray[np.float32]]
) -> tuple[BlobRef, Digest]:
    """Write the flat float32 vector that `parts` are in turn, as `write_checkpoint` would, and compute its Merkle root on the way.

    The root's hashes are taken in a thread of their own, beside the file's.

    Raises:
        LocalProtocolError: the parts do not fit the tensors, or a value is not finite; nothing is written then.
        OSError: as `write_bytes`.
    """
    leaves = Leaves(tensors)

    def pieces() -> Iterator[bytes | memoryview]:
        yield header_bytes(tensors)
        for part in parts:
            if part.dtype != np.float32 or not _all_finite(part):
                raise LocalProtocolError("checkpoint: a value is not a finite float32")
            data = np.ascontiguousarray(part, "<f4").data.cast("B")
            hashed = pool.submit(leaves.add, data)
            yield data
            hashed.result()
        leaves.end()

    with ThreadPoolExecutor(1) as pool:
        return write_parts(path, pieces()), leaves.root()


def load_checkpoint_untrusted(
    path: str | os.PathLike[str], tensors: Sequence[TensorSpec], begin: int = 0, count: int = -1
) -> NDArray[np.float32]:
    """The flat float32 vector of a checkpoint that somebody else wrote, or only `count` values of it, from `begin` on.

    Size and header are checked before the data are read.

    Raises:
        RemoteProtocolError: the file is not the canonical checkpoint of `tensors`, or a weight is not finite.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        _check_untrusted(file, tensors)
        flat = np.fromfile(file, "<f4", count, offset=4 * begin).astype(np.float32, copy=False)
    if not _all_finite(flat):
        raise RemoteProtocolError("checkpoint", "a weight is not finite")
    return flat


def map_checkpoint_untrusted(path: str | os.PathLike[str], tensors: Sequence[TensorSpec], *, finite: bool = False) -> NDArray[np.float32]:
    """The same vector, memory-mapped and read-only: it takes no memory that the system cannot have back. Size and header are checked.

    Raises:
        RemoteProtocolError: the file is not the canonical checkpoint of `tensors`; or a weight is not finite, which only `finite` looks at.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        _check_untrusted(file, tensors)
        flat = np.memmap(file, "<f4", "r", offset=file.tell())
    if finite and not _all_finite(flat):
        raise RemoteProtocolError("checkpoint", "a weight is not finite")
    return flat


def checkpoint_root_untrusted(path: str | os.PathLike[str], tensors: Sequence[TensorSpec]) -> Digest:
    """The Merkle root of a checkpoint that somebody else wrote. Raises as `read_checkpoint_untrusted`."""
    leaves = Leaves(tensors)
    for _, block in read_checkpoint_untrusted(path, tensors):
        leaves.add(block.data.cast("B"))
    leaves.end()
    return leaves.root()


def read_checkpoint_untrusted(
    path: str | os.PathLike[str], tensors: Sequence[TensorSpec]
) -> Iterator[tuple[TensorSpec, NDArray[np.float32]]]:
    """The values of a checkpoint that somebody else wrote, in order, a few MiB at a time, each block of one tensor and all of them checked.

    Raises:
        RemoteProtocolError: the file is not the canonical checkpoint of `tensors`, or a weight is not finite.
        OSError: the file cannot be read, or shrinks meanwhile.
    """
    with open(path, "rb") as file:
        _check_untrusted(file, tensors)
        for tensor, size in zip(tensors, tensor_sizes(tensors), strict=True):
            missing = 4 * size
            while missing:
                read = file.read(min(missing, _BLOCK_BYTES))
                missing -= len(read)
                if not read or len(read) % 4:
                    raise OSError(f"{path} ended while it was read")
                block = np.frombuffer(read, "<f4")
                if not _all_finite(block):
                    raise RemoteProtocolError("checkpoint", "a weight is not finite")
                yield tensor, block


def _check_untrusted(file: BinaryIO, tensors: Sequence[TensorSpec]) -> None:
    """Read the header; the file then stands at its data, as many bytes as the tensors have."""
    expected = header_bytes(tensors)
    promised = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if promised != len(expected) - _LENGTH_BYTES:
        raise RemoteProtocolError("checkpoint", f"its header promises {promised} bytes, this run's has {len(expected) - _LENGTH_BYTES}")
    if file.read(promised) != expected[_LENGTH_BYTES:]:
        raise RemoteProtocolError("checkpoint", "its header does not list this run's tensors in canonical form")
    wanted, actual = 4 * sum(tensor_sizes(tensors)), os.fstat(file.fileno()).st_size - len(expected)
    if actual != wanted:
        raise RemoteProtocolError("checkpoint", f"{actual} bytes of data, but this run's tensors have {wanted}")


def _all_finite(flat: NDArray[np.float32]) -> bool:
    """Whether no value is infinite or no number: what is greatest or least would be it. Without an array of the answers."""
    return not len(flat) or bool(np.isfinite(flat.max()) and np.isfinite(flat.min()))


def merkle_root(tensors: Sequence[TensorSpec], flat: NDArray[np.float32]) -> Digest:
    """Merkle root over the tensors in manifest order.

    Leaf: H("nostrain/leaf", SHA256(name) ‖ rank as u32 ‖ dimensions as u64 ‖ SHA256(little-endian data)); node: H("nostrain/node", left ‖ right);
    the last of an odd row moves up as it is.
    """
    leaves = Leaves(tensors)
    leaves.add(np.ascontiguousarray(flat, "<f4").data.cast("B"))
    leaves.end()
    return leaves.root()


class Leaves:
    """The leaves of a Merkle root, from data that come in pieces of any size."""

    def __init__(self, tensors: Sequence[TensorSpec]) -> None:
        self._tensors, self._sizes = tuple(tensors), [4 * size for size in tensor_sizes(tensors)]
        self._row: list[bytes] = []
        self._values, self._missing = hashlib.sha256(), self._sizes[0]

    def add(self, data: memoryview) -> None:
        """The next bytes. Raises LocalProtocolError if the tensors have fewer."""
        while len(data):
            if not self._missing:
                raise LocalProtocolError("checkpoint: more values than this run's tensors have")
            self._values.update(data[: self._missing])
            taken = min(len(data), self._missing)
            data = data[taken:]
            self._missing -= taken
            if not self._missing:
                self._close()

    def _close(self) -> None:
        tensor = self._tensors[len(self._row)]
        shape = len(tensor.shape).to_bytes(4, "big") + b"".join(side.to_bytes(8, "big") for side in tensor.shape)
        name = hashlib.sha256(tensor.name.encode())
        self._row.append(tagged_hash("nostrain/leaf", name.digest(), shape, self._values.digest()))
        if len(self._row) < len(self._tensors):
            self._values, self._missing = hashlib.sha256(), self._sizes[len(self._row)]

    def end(self) -> None:
        """Raises LocalProtocolError if bytes are missing."""
        if self._missing:
            raise LocalProtocolError("checkpoint: fewer values than this run's tensors have")

    def root(self) -> Digest:
        """The root, once all bytes were added."""
        row = self._row
        while len(row) > 1:
            paired = [tagged_hash("nostrain/node", row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
            row = paired + row[len(paired) * 2 :]
        return Digest(row[0].hex())
