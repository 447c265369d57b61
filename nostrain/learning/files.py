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


class LastMade:
    """The delta that this process encoded last, as it decodes: the next training may begin with it, and decoding takes long."""

    def __init__(self) -> None:
        self._kept: tuple[Digest, Delta] | None = None

    def keep(self, digest: Digest, delta: Delta) -> None:
        """Remember what the file of that digest decodes to."""
        self._kept = digest, delta

    def read_untrusted(self, path: str, tensors: Sequence[TensorSpec], codec: CodecSpec, digest: Digest) -> Delta:
        """As `read_delta_untrusted`, of a file with that digest; one that is remembered is not read, since its digest names these bytes."""
        if self._kept is not None and self._kept[0] == digest:
            return self._kept[1]
        return decode_untrusted(read_blob_untrusted(path, tensors, codec, digest), tensors, codec)


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
