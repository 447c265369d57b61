"""The bytes between the daemon and its engine process: a 4-byte big-endian length, then one msgpack map.

Request: `{"id": int, "job": {"type": tag, …}}`. Reply: `{"id": int, "result": {"type": tag, …}}` or `{"id": int, "error": {"family", "message"}}`.
Jobs and results are the tagged structs of `protocol.jobs`. The engine decodes hostile blobs, so what it says is read as a stranger's.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
import trio

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.jobs import Job, JobResult

MAX_FRAME: Final = 16 << 20
_LENGTH_BYTES: Final = 4


class Request(msgspec.Struct, frozen=True):
    """One job, with a number that its reply repeats."""

    id: int
    job: Job


class EngineError(msgspec.Struct, frozen=True):
    """Why a job has no result. `local`: the job itself is wrong. `unavailable`: this time it failed, another time it may not."""

    family: Literal["local", "unavailable"]
    message: str


class Reply(msgspec.Struct, frozen=True):
    """Exactly one of `result` and `error`."""

    id: int
    result: JobResult | None = None
    error: EngineError | None = None


_REPLY: Final = msgspec.msgpack.Decoder(Reply)
_ENCODER: Final = msgspec.msgpack.Encoder()


def request_frame(request: Request) -> bytes:
    """The frame of `request`. Raises LocalProtocolError when it is larger than a frame may be."""
    payload = _ENCODER.encode(request)
    if len(payload) > MAX_FRAME:
        raise LocalProtocolError(f"a job of {len(payload)} bytes does not fit in a frame of {MAX_FRAME}")
    return len(payload).to_bytes(_LENGTH_BYTES, "big") + payload


def parse_reply_untrusted(payload: bytes) -> Reply:
    """The reply in `payload`. Raises RemoteProtocolError."""
    try:
        reply = _REPLY.decode(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise RemoteProtocolError("engine reply", str(error)) from None
    if (reply.result is None) == (reply.error is None):
        raise RemoteProtocolError("engine reply", "needs exactly one of result and error")
    return reply


class FrameReader:
    """Frames out of a byte stream."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def read(self) -> bytes:
        """The next frame's payload.

        Raises EOFError when the stream ends, in a frame or between two; RemoteProtocolError for a frame that promises too much, before
        reading it. After a cancellation the reader is of no further use.
        """
        length = int.from_bytes(await self._exactly(_LENGTH_BYTES), "big")
        if length > MAX_FRAME:
            raise RemoteProtocolError("engine frame", f"promises {length} bytes, more than {MAX_FRAME}")
        return await self._exactly(length)

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            chunk = await self._stream.receive_some()
            if not chunk:
                raise EOFError
            self._buffer += chunk
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
