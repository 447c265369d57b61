"""BOLT 8: an encrypted connection to a lightningd, as the one that begins it. The handshake is pyln-proto's, the bytes go through trio.

The other side has proved that it has the key of `node_id` once a first message of its was received: an impostor's cannot be opened. (pyln-proto
notices a wrong tag in act two and goes on; the keys that follow from it are then another's.)
"""

from __future__ import annotations

import os
import struct
from typing import Final

import trio
from cryptography.exceptions import InvalidTag
from pyln.proto.primitives import PrivateKey, PublicKey
from pyln.proto.wire import LightningConnection, decryptWithAD, encryptWithAD, hkdf_two_keys

from nostrain.errors import Unavailable

ROTATE_AFTER: Final = 1000
"""Uses of a key: each message takes two, its length and its text."""
_TAG: Final = 16
_HEADER: Final = 2 + _TAG
_ACT_TWO: Final = 50
_CHUNK: Final = 65536


class Broken(Exception):
    """The connection ended, or what came is not from who it should be; nothing more can be sent or received."""


class Cipher:
    """One direction: a key, how often it was used, and what the next key follows from."""

    def __init__(self, key: bytes, chaining_key: bytes) -> None:
        self._key, self._chaining_key, self._used = key, chaining_key, 0

    def seal(self, text: bytes) -> bytes:
        """Encrypt, with a tag of 16 bytes behind it."""
        sealed: bytes = encryptWithAD(self._key, LightningConnection.nonce(self._used), b"", text)
        self._count()
        return sealed

    def open(self, sealed: bytes) -> bytes:
        """Decrypt. Raises Broken when it was not sealed with this key as its next use."""
        try:
            text: bytes = decryptWithAD(self._key, LightningConnection.nonce(self._used), b"", sealed)
        except InvalidTag as error:
            raise Broken("what came was not encrypted for us by that node") from error
        self._count()
        return text

    def _count(self) -> None:
        self._used += 1
        if self._used == ROTATE_AFTER:
            self._chaining_key, self._key = hkdf_two_keys(salt=self._chaining_key, ikm=self._key)
            self._used = 0


class NoiseStream:
    """Messages of at most 65535 bytes, in order. One task may send while another one receives."""

    def __init__(self, stream: trio.SocketStream, sending: Cipher, receiving: Cipher) -> None:
        self._stream, self._sending, self._receiving = stream, sending, receiving
        self._buffer = bytearray()
        self._length: int | None = None

    async def send(self, *messages: bytes) -> None:
        """Send all messages. If this is cancelled or raises, the last of them has not arrived, and nothing may be sent any more. Raises Broken."""
        frames = [self._sending.seal(struct.pack("!H", len(message))) + self._sending.seal(message) for message in messages]
        try:
            await self._stream.send_all(b"".join(frames))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise Broken(f"the connection broke: {error}") from error

    async def receive(self) -> bytes:
        """The next message. May be cancelled and called again. Raises Broken."""
        if self._length is None:
            header = self._receiving.open(await self._take(_HEADER))
            self._length = int(struct.unpack("!H", header)[0])
        message = self._receiving.open(await self._take(self._length + _TAG))
        self._length = None
        return message

    def readable(self) -> bool:
        """Whether something has come, or lightningd has hung up."""
        return bool(self._buffer) or self._stream.socket.is_readable()

    async def aclose(self) -> None:
        """Hang up, at once."""
        await trio.aclose_forcefully(self._stream)

    async def _take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            try:
                chunk = await self._stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise Broken(f"the connection broke: {error}") from error
            if not chunk:
                raise Broken("lightningd hung up")
            self._buffer += chunk
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken


async def connect(node_id: str, host: str, port: int) -> NoiseStream:
    """A connection to the node of that id (66 hex digits), under a key that is drawn for it. Raises Unavailable; closed when cancelled."""
    try:
        node_key = PublicKey(bytes.fromhex(node_id))
    except ValueError as error:
        raise Unavailable(f"{node_id:.66} is the id of no node") from error
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as error:
        raise Unavailable(f"lightningd does not answer at {host}:{port}: {error}") from error
    try:
        return await shake(stream, node_key, PrivateKey(os.urandom(32)))
    except Broken as error:
        await trio.aclose_forcefully(stream)
        raise Unavailable(f"{host}:{port} is not the node {node_id[:8]}, or takes no connections: {error}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


async def shake(stream: trio.SocketStream, node_key: PublicKey, own_key: PrivateKey) -> NoiseStream:
    """The three acts of the handshake. Raises Broken."""
    acts = LightningConnection(None, node_key, own_key, is_initiator=True)
    try:
        await stream.send_all(acts.handshake_act_one_initiator())
        answer = b""
        while len(answer) < _ACT_TWO:
            chunk = await stream.receive_some(_ACT_TWO - len(answer))
            if not chunk:
                raise Broken("it hung up during the handshake")
            answer += chunk
        acts.handshake_act_two_initiator(answer)
        await stream.send_all(acts.handshake_act_three_initiator())
    except (trio.BrokenResourceError, ValueError) as error:
        raise Broken(f"the handshake failed: {error}") from error
    return NoiseStream(stream, Cipher(acts.sk, acts.chaining_key), Cipher(acts.rk, acts.chaining_key))
