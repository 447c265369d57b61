"""A TCP proxy that is a slow link: bytes a second in each direction, shared by all connections, and a delay; trio, in user space.

A connection's first bytes wait a round trip, as for TCP's handshake. TCP's slow start, losses and acknowledgements are not modelled.
"""

from __future__ import annotations

import math
from functools import partial

import trio

CHUNK = 16 * 1024
MOST_CHUNKS = 256
"""Of one connection and direction on their way: more than 100 Mbit/s and 50 ms hold."""


class Direction:
    """One direction of the link. `delay_s` one way."""

    def __init__(self, bytes_per_s: float, delay_s: float) -> None:
        self._bytes_per_s, self._delay_s = bytes_per_s, delay_s
        self._free = -math.inf
        self.bytes = 0
        """That were sent over it."""

    def arrival(self, size: int) -> float:
        """When the last of `size` bytes handed over now is at the other end (trio's clock): after all that was handed over before."""
        self._free = max(trio.current_time(), self._free) + size / self._bytes_per_s
        self.bytes += size
        return self._free + self._delay_s

    async def carry(self, source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        """Everything from `source` to `sink`, until `source` ends; `sink` is told so if it can be."""
        push, pull = trio.open_memory_channel[tuple[float, bytes]](MOST_CHUNKS)

        async def deliver() -> None:
            async for when, data in pull:
                await trio.sleep_until(when)
                await sink.send_all(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            async with push:
                while data := await source.receive_some(CHUNK):
                    await push.send((self.arrival(len(data)), bytes(data)))
                await push.send((self.arrival(0), b""))
        if isinstance(sink, trio.abc.HalfCloseableStream):
            await sink.send_eof()


class Link:
    """Both directions, as seen from who sits behind the link."""

    def __init__(self, bits_per_s: float, round_trip_s: float) -> None:
        self.round_trip_s = round_trip_s
        self.up, self.down = (Direction(bits_per_s / 8, round_trip_s / 2) for _ in range(2))

    async def serve(self, port: int, near: trio.SocketStream) -> None:
        """One connection from behind the link to `port` of this machine; whatever ends one half with an error ends both."""
        try:
            async with near, await trio.open_tcp_stream("127.0.0.1", port) as far:
                await trio.sleep(self.round_trip_s)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.up.carry, near, far)
                    nursery.start_soon(self.down.carry, far, near)
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def listen(self, nursery: trio.Nursery, port: int) -> int:
        """Lead what connects to the port that is returned over the link to `port`, until `nursery` ends."""
        listeners = await nursery.start(partial(trio.serve_tcp, partial(self.serve, port), 0, host="127.0.0.1"))
        found: int = listeners[0].socket.getsockname()[1]
        return found
