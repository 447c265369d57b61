"""Frames between daemon and engine: a 4-byte big-endian length, then a msgpack map of at most 16 MiB."""

from __future__ import annotations

from typing import IO, Final

import msgspec

from nostrain.errors import LocalProtocolError
from nostrain.protocol.jobs import JobResult

FRAME_MAX: Final = 16 << 20


class Request(msgspec.Struct, frozen=True):
    """`job` is a `Job`, left encoded so that a wrong one can be answered with its `id`."""

    id: int
    job: msgspec.Raw


class Failure(msgspec.Struct, frozen=True):
    """`local`: the job itself is wrong. `unavailable`: it could not be run now; trying again is safe."""

    family: str
    message: str


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of `result` and `error` is present."""

    id: int
    result: JobResult | None = None
    error: Failure | None = None


def read_frame(stream: IO[bytes]) -> bytes | None:
    """The next frame's body, or None at the end of the stream.

    Raises:
        LocalProtocolError: the frame is too long or cut short.
    """
    prefix = stream.read(4)
    if not prefix:
        return None
    length = int.from_bytes(prefix, "big")
    if length > FRAME_MAX:
        raise LocalProtocolError(f"engine frame of {length} bytes; {FRAME_MAX} is the limit")
    body = stream.read(length)
    if len(prefix) < 4 or len(body) < length:
        raise LocalProtocolError("engine frame cut short")
    return body


def write_frame(stream: IO[bytes], body: bytes) -> None:
    """Write one frame and flush.

    Raises:
        LocalProtocolError: the body is too long.
    """
    if len(body) > FRAME_MAX:
        raise LocalProtocolError(f"engine frame of {len(body)} bytes; {FRAME_MAX} is the limit")
    stream.write(len(body).to_bytes(4, "big") + body)
    stream.flush()
