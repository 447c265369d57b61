"""Shards of tokens: made from a folder of text, a byte a token, and the windows that a seed draws from them (design section 12, "Did they train on their data?").

A window of n tokens is n + 1 consecutive tokens of one shard: inputs and, one further, targets.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.hashes import tagged_hash
from nostrain.learning.stream import choose, numbers
from nostrain.protocol.dataset import MANIFEST_FILE, SEPARATOR, VALIDATION_FILE, DatasetManifest, Dtype, Shard, shard_file
from nostrain.protocol.manifest import BlobRef, TrainingSpec
from nostrain.sparseloco.checkpoint import write_bytes

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "__pycache__"}

Tokens = NDArray[np.unsignedinteger[Any]]


def text_files(text: str | None) -> list[tuple[str, Path]]:
    """Name and path of every file of the folder `text`, or of this Python's own library (`*.py`) if None; sorted by name.

    Raises:
        LocalProtocolError: the folder does not exist.
    """
    root = Path(text) if text is not None else Path(sysconfig.get_path("stdlib"))
    if not root.is_dir():
        raise LocalProtocolError(f"text folder {root} does not exist")
    found = root.rglob("*" if text is not None else "*.py")
    named = [(path.relative_to(root).as_posix(), path) for path in found if path.is_file() and not _SKIPPED_FOLDERS & set(path.parts)]
    return sorted(named)


def build_shards(
    text: str | None, seed: int, shard_bytes: int, validation_bytes: int, out_dir: Path
) -> tuple[BlobRef, DatasetManifest, list[tuple[BlobRef, str]], int]:
    """Shuffle the files by `seed`, join them, cut the end off for validation and the rest in shards of exactly `shard_bytes`.

    Returns the dataset manifest blob, its content, every blob with its path (shards, validation, manifest) and the bytes of all text.

    Raises:
        LocalProtocolError: there is too little text for two shards and the validation shard.
    """
    named = text_files(text)
    named.sort(key=lambda entry: hashlib.sha256(f"{seed}/{entry[0]}".encode()).digest())
    joined = bytes([SEPARATOR]).join(path.read_bytes() for _, path in named)
    count = (len(joined) - validation_bytes) // shard_bytes
    if count < 2:
        needed = 2 * shard_bytes + validation_bytes
        raise LocalProtocolError(f"{len(joined)} bytes of text in {len(named)} files; two shards and validation need {needed}")
    blobs = []
    for at in range(count):
        path = out_dir / shard_file(at)
        blobs.append((_write_shard(path, joined[at * shard_bytes : (at + 1) * shard_bytes]), str(path)))
    path = out_dir / VALIDATION_FILE
    validation = _write_shard(path, joined[len(joined) - validation_bytes :])
    manifest = DatasetManifest(shards=tuple(shard for shard, _ in blobs), validation=validation)
    written = write_bytes(out_dir / MANIFEST_FILE, msgspec.json.encode(manifest))
    made: list[tuple[BlobRef, str]] = [*blobs, (validation, str(path)), (written, str(out_dir / MANIFEST_FILE))]
    return written, manifest, made, len(joined)


def _write_shard(path: Path, data: bytes) -> Shard:
    ref = write_bytes(path, data)
    return Shard(ref.sha256, ref.size, tokens=len(data), text_bytes=len(data))


def read_shard(path: str, dtype: Dtype = "uint8") -> Tokens:
    """The tokens of a shard, memory-mapped. Raises RemoteProtocolError when the file does not end with a whole token."""
    try:
        return np.memmap(path, np.dtype(dtype).newbyteorder("<"), mode="r")
    except ValueError as error:
        raise RemoteProtocolError("shard", f"not made of {dtype} tokens: {error}") from None


def training_windows(seed: str, shard_length: int, training: TrainingSpec) -> NDArray[np.int64]:
    """Offsets of the windows of H inner steps, in order: int64 [H · batch]. Who knows the seed knows exactly what was to be trained on.

    Raises:
        RemoteProtocolError: the shard is shorter than one window.
    """
    count = training.inner_steps * training.batch_size
    return _offsets(seed, shard_length, count, training.sequence_length)


def assigned_sample(evaluation_seed: str, window_seed: str, shard_length: int, training: TrainingSpec, count: int) -> NDArray[np.int64]:
    """Offsets of `count` different windows out of the `training_windows` of `window_seed`, chosen by `evaluation_seed`."""
    offsets = training_windows(window_seed, shard_length, training)
    pick = tagged_hash("nostrain/assigned", bytes.fromhex(evaluation_seed), bytes.fromhex(window_seed)).hex()
    return np.array([offsets[at] for at in choose(pick, len(offsets), count)], np.int64)


def unassigned_windows(seed: str, shard_lengths: Sequence[int], count: int, sequence_length: int) -> list[tuple[int, int]]:
    """`count` pairs (shard, offset): the shard is drawn first, then the offset in it.

    Raises:
        RemoteProtocolError: a shard is shorter than one window.
    """
    _check_lengths(shard_lengths, sequence_length)
    draw = numbers(seed)
    pairs = []
    for _ in range(count):
        shard = next(draw) % len(shard_lengths)
        pairs.append((shard, next(draw) % (shard_lengths[shard] - sequence_length)))
    return pairs


def cut(shard: Tokens, offsets: Sequence[int] | NDArray[np.int64], sequence_length: int) -> NDArray[np.int64]:
    """Windows as tokens: int64 [windows, sequence_length + 1]."""
    at = np.asarray(offsets, np.int64)[:, None] + np.arange(sequence_length + 1)
    tokens: NDArray[np.int64] = shard[at].astype(np.int64)
    return tokens


def known(windows: NDArray[np.int64], vocab_size: int) -> NDArray[np.int64]:
    """The windows as they are. Raises RemoteProtocolError when they have a token that no model with that vocabulary knows."""
    if windows.size and int(windows.max()) >= vocab_size:
        raise RemoteProtocolError("shard", f"has the token {int(windows.max())}, the model knows {vocab_size}")
    return windows


def _offsets(seed: str, shard_length: int, count: int, sequence_length: int) -> NDArray[np.int64]:
    _check_lengths([shard_length], sequence_length)
    draw = numbers(seed)
    return np.array([next(draw) % (shard_length - sequence_length) for _ in range(count)], np.int64)


def _check_lengths(lengths: Sequence[int], sequence_length: int) -> None:
    if not lengths or min(lengths) <= sequence_length:
        raise RemoteProtocolError("shard", f"shorter than one window of {sequence_length} tokens")
