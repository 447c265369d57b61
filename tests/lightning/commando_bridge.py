"""A node of the network that speaks commando, in front of a `lightning-rpc`: for the simnet, which has no BOLT 8, and to break the rules.

The responder's side of the handshake is pyln-proto's. Like lightningd 26.06, it reads nothing while a request is being carried out.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path

import msgspec
import trio
from cryptography.exceptions import InvalidTag
from pyln.proto.primitives import PrivateKey
from pyln.proto.wire import LightningConnection

from nostrain.lightning.commando import (
    INIT,
    PIECE,
    PING,
    PONG,
    REPLY_CONTINUES,
    REPLY_ENDS,
    REQUEST_CONTINUES,
    REQUEST_ENDS,
    NodeAddress,
)
from nostrain.lightning.noise import Broken, Cipher, NoiseStream

KEY = b"\x21" * 32
RUNE = "r" * 43


class CommandoBridge:
    """Serves the methods in `allowed` (None: all) of the socket `target` to who shows `RUNE`. `said` has what clients sent beside requests."""

    def __init__(self, target: Path, allowed: Collection[str] | None = None) -> None:
        self.target, self.allowed = target, allowed
        self.key = PrivateKey(KEY)
        self.address = NodeAddress("", "", 0)
        self.said: list[int] = []
        self.connections = 0
        self._guests: list[trio.SocketStream] = []

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen on loopback until cancelled."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        self.address = NodeAddress(self.key.public_key().serializeCompressed().hex(), "127.0.0.1", port)
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(self._guest, listeners, handler_nursery=nursery)

    async def _guest(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self._guests.append(stream)
        async with stream:
            try:
                await self.session(await answer_handshake(stream, self.key))
            except (Broken, InvalidTag, trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                pass

    def hang_up(self) -> None:
        """Close every connection."""
        for stream in self._guests:
            stream.socket.close()

    async def session(self, noise: NoiseStream) -> None:
        """What it does with a connection: requests one after the other."""
        await noise.send(struct.pack("!HHH", INIT, 0, 0) + bytes(2))
        partial = b""
        while True:
            message = await noise.receive()
            (kind,) = struct.unpack_from("!H", message)
            if kind in (REQUEST_CONTINUES, REQUEST_ENDS):
                partial += message[10:]
                if kind == REQUEST_ENDS:
                    await reply(noise, message[2:10], await self.answer(partial))
                    partial = b""
            else:
                self.said.append(kind)
                if kind == PING:
                    await noise.send(struct.pack("!HH", PONG, 0))

    async def answer(self, text: bytes) -> bytes:
        """The reply to a request, from the socket or from commando itself."""
        request = msgspec.json.decode(text)
        if request.pop("rune") != RUNE:
            return b'{"error":{"code":19537,"message":"Invalid rune"}}'
        if self.allowed is not None and request["method"] not in self.allowed:
            return b'{"error":{"code":19537,"message":"Invalid rune: Not permitted"}}'
        server = await trio.open_unix_socket(self.target)
        async with server:
            await server.send_all(msgspec.json.encode(request))
            found = b""
            while not found.endswith(b"\n\n"):
                chunk = await server.receive_some(65536)
                if not chunk:
                    raise Broken("the node is gone")
                found += chunk
        return found.rstrip(b"\n")


async def reply(noise: NoiseStream, number: bytes, text: bytes) -> None:
    """In as many pieces as it takes."""
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    for piece in pieces[:-1]:
        await noise.send(struct.pack("!H", REPLY_CONTINUES) + number + piece)
    await noise.send(struct.pack("!H", REPLY_ENDS) + number + pieces[-1])


async def answer_handshake(stream: trio.SocketStream, key: PrivateKey) -> NoiseStream:
    """The responder's acts. Raises Broken."""
    acts = LightningConnection(None, None, key, is_initiator=False)
    acts.handshake_act_one_responder(await exactly(stream, 50))
    await stream.send_all(acts.handshake_act_two_responder())
    acts.handshake_act_three_responder(await exactly(stream, 66))
    return NoiseStream(stream, Cipher(acts.sk, acts.chaining_key), Cipher(acts.rk, acts.chaining_key))


async def exactly(stream: trio.SocketStream, count: int) -> bytes:
    """So many bytes. Raises Broken."""
    found = b""
    while len(found) < count:
        chunk = await stream.receive_some(count - len(found))
        if not chunk:
            raise Broken("hung up")
        found += chunk
    return found
