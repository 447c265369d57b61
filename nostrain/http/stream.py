"""A TCP connection whose writes have a deadline, which ends when nothing moves on it, and which can be cut at any time.

hypercorn shields its writes from cancellation: without a deadline below it, one peer that stops reading would hold a task,
and the daemon's shutdown, for ever. It also forgets connections in some corners (a WebSocket handshake that it refuses).
"""

from __future__ import annotations

from typing import Final

import trio

READ: Final = 1 << 17
"""Bytes that are read at once while a body streams in: with hypercorn's 64 KiB an upload costs a quarter more CPU."""


class BoundedStream:
    """The part of `trio.SocketStream` that hypercorn uses; the absence of `do_handshake` tells it that this is not TLS."""

    def __init__(self, inner: trio.SocketStream, send_timeout: float, silence: float) -> None:
        self._inner = inner
        self._send_timeout, self._silence = send_timeout, silence
        self._moved = trio.current_time()
        self._streaming = False
        self.socket = inner.socket

    async def send_all(self, data: bytes) -> None:
        """Send everything, or raise BrokenResourceError once the peer has taken too long."""
        self._streaming = False
        with trio.move_on_after(self._send_timeout) as scope:
            await self._inner.send_all(data)
        if scope.cancelled_caught:
            self.abort()
            raise trio.BrokenResourceError("the peer stopped reading")
        self._moved = trio.current_time()

    async def receive_some(self, max_bytes: int) -> bytes:
        """As `trio.SocketStream.receive_some`, but after a full read perhaps more than `max_bytes`.

        Raises BrokenResourceError once nothing has moved in either direction for too long.
        """
        while trio.current_time() < self._moved + self._silence:
            with trio.move_on_at(self._moved + self._silence):
                # Not for the first bytes of a request: how much of them comes at once is the limit of its headers.
                data = bytes(await self._inner.receive_some(READ if self._streaming else max_bytes))
                self._streaming = len(data) >= max_bytes
                self._moved = trio.current_time()
                return data
        self.abort()
        raise trio.BrokenResourceError("silent for too long")

    async def send_eof(self) -> None:
        """As `trio.SocketStream.send_eof`."""
        await self._inner.send_eof()

    async def aclose(self) -> None:
        """Close; idempotent."""
        await self._inner.aclose()

    def abort(self) -> None:
        """Close the socket now; whoever reads or writes on it gets ClosedResourceError."""
        self.socket.close()
