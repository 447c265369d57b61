"""Deltas in files: the size is checked before a byte is read."""

from __future__ import annotations

import os
from collections.abc import Sequence

from nostrain.errors import RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.protocol.manifest import CodecSpec, TensorSpec
from nostrain.sparseloco.codec import decode_untrusted
from nostrain.sparseloco.container import largest_size
from nostrain.sparseloco.delta import Delta
from nostrain.sparseloco.layout import plan
from nostrain.units import Digest


def read_delta_untrusted(path: str, tensors: Sequence[TensorSpec], codec: CodecSpec) -> Delta:
    """Decode the delta in the file `path`.

    Raises:
        RemoteProtocolError: the file is not a delta of this run.
        OSError: the file cannot be read.
    """
    return decode_untrusted(read_blob_untrusted(path, tensors, codec), tensors, codec)


def read_blob_untrusted(path: str, tensors: Sequence[TensorSpec], codec: CodecSpec, digest: Digest | None = None) -> bytes:
    """The bytes of the file `path`; if `digest` is given, the file must have it.

    Raises:
        RemoteProtocolError: the file is longer than any delta of this run, or is another file.
        OSError: the file cannot be read.
    """
    largest = largest_size(plan(tensors, codec))
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise RemoteProtocolError("delta", f"{size} bytes, but this run's deltas have at most {largest}")
        blob = file.read(size)
    if digest is not None and sha256_hex(blob) != digest:
        raise RemoteProtocolError(f"delta {digest}", "the file has another digest")
    return blob
