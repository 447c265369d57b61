"""Core Lightning's methods for the holder of a rune: JSON-RPC in messages of BOLT 8 (`plugins/commando.c` of lightningd), and no socket file.

A connection carries one call at a time, as on the Unix socket: lightningd (26.06: `read_body_from_peer_done` in `connectd/multiplex.c`) reads a
peer's next message only when it has sent it something, so that a call that waits for days would be in everybody's way. One that has had its reply is
kept for a few seconds, for the next call. Each has a key that is drawn for it: a node has one connection with each key.

lightningd carries a request out when its last message has come whole, and not before. After that, anything but a proper reply leaves the outcome
unknown: a reply is sent once, to the connection that asked.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, NoReturn, TypeVar

import msgspec
import trio

from nostrain.errors import LocalProtocolError, OutcomeUnknown, Unavailable
from nostrain.lightning.noise import Broken, NoiseStream, connect
from nostrain.lightning.rpc import MAX_REPLY, read_reply

INIT: Final = 16
ERROR: Final = 17
PING: Final = 18
PONG: Final = 19
REQUEST_CONTINUES: Final = 0x4C4D
REQUEST_ENDS: Final = 0x4C4F
REPLY_CONTINUES: Final = 0x594B
REPLY_ENDS: Final = 0x594D
PIECE: Final = 65_000
"""Bytes of JSON in a message: what commando itself uses."""
MAX_REQUEST: Final = 1 << 20
"""A longer one lightningd drops without a word."""
NO_PONG: Final = 65_532
"""A ping that asks for at least so many bytes wants no answer (BOLT 1)."""
CONNECT_S: Final = 10.0
IDLE_S: Final = 10.0
"""lightningd pings a peer after 15 s or more, and hangs up on one that does not answer."""
MAX_IDLE: Final = 8
HEAR_S: Final = 0.1
QUIET_S: Final = 30.0
"""After such a silence during a call we ping; after a second one the connection is lost."""

T = TypeVar("T")


class NodeAddress(NamedTuple):
    """Where a lightningd takes connections of other nodes, and its id, 66 hex digits."""

    node_id: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.node_id[:8]}…@{self.host}:{self.port}"


class Rune:
    """The right to some methods of a node: a secret. Nothing that prints, formats or pickles an instance shows it."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Rune(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Rune is not to be copied out of its process")


class _Error(msgspec.Struct, frozen=True):
    message: str


class _Refusal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that commando writes itself, before any method is called: what is from lightningd has `jsonrpc` and `id`."""

    error: _Error


class Session:
    """One connection. Whoever calls it closes it, unless the call had its reply."""

    def __init__(self, stream: NoiseStream) -> None:
        self._stream = stream
        self.idle_since = 0.0

    async def send(self, number: int, text: bytes) -> None:
        """Send a request. If this raises Broken, or is cancelled, the request was not made."""
        pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
        kinds = [REQUEST_CONTINUES] * (len(pieces) - 1) + [REQUEST_ENDS]
        await self._stream.send(*(struct.pack("!HQ", kind, number) + piece for kind, piece in zip(kinds, pieces, strict=True)))

    async def reply(self, number: int) -> bytes:
        """The reply to that request, whenever it comes. Raises Broken, also when lightningd says nothing, and answers no ping."""
        reply, quiet = bytearray(), False
        while True:
            with trio.move_on_after(QUIET_S):
                kind, message = await self._next()
                quiet = False
                if kind in (REPLY_CONTINUES, REPLY_ENDS) and message[:8] == struct.pack("!Q", number):
                    reply += message[8:]
                    if len(reply) > MAX_REPLY:
                        raise Broken(f"a reply of more than {MAX_REPLY} bytes")
                    if kind == REPLY_ENDS:
                        return bytes(reply)
                continue
            if quiet:
                raise Broken(f"lightningd was silent for {2 * QUIET_S:g} s")
            quiet = True
            await self._stream.send(struct.pack("!HHH", PING, 1, 0))

    async def alive(self) -> bool:
        """Whether lightningd has not hung up meanwhile, as far as one can know; what it has said is heard."""
        try:
            with trio.move_on_after(HEAR_S):
                while self._stream.readable():
                    await self._next()
                return True
        except Broken:
            pass
        return False

    async def aclose(self) -> None:
        """Hang up, at once: what is being carried out is carried out, but nobody hears of it."""
        await self._stream.aclose()

    async def _next(self) -> tuple[int, bytes]:
        """Type and text of the next message; a ping is answered. Raises Broken."""
        message = await self._stream.receive()
        try:
            (kind,) = struct.unpack_from("!H", message)
            if kind == PING:
                (wanted,) = struct.unpack_from("!H", message, 2)
                if wanted < NO_PONG:
                    await self._stream.send(struct.pack("!HH", PONG, wanted) + bytes(wanted))
        except struct.error as error:
            raise Broken(f"lightningd sent half a message: {error}") from error
        if kind == ERROR:
            raise Broken(f"lightningd says: {message[36:].decode(errors='replace'):.200}")
        return kind, message[2:]


class Commando:
    """The methods of one lightningd that a rune allows, by name. Use `open_commando`."""

    def __init__(self, address: NodeAddress, rune: Rune) -> None:
        self._address, self._rune = address, rune
        self._numbers = itertools.count(1)
        self._idle: list[Session] = []

    def __str__(self) -> str:
        return str(self._address)

    async def call(self, method: str, params: Mapping[str, object], reply: type[T], *, timeout_s: float | None) -> T:
        """As `rpc.ClnRpc.call`. Unavailable also when the rune does not allow it, which lightningd finds before it does anything.

        Raises LocalProtocolError for a request of more than 1 MiB.
        """
        number = next(self._numbers)
        name = f"nostrain:{method}#{number}"
        request = {"jsonrpc": "2.0", "id": name, "method": method, "params": dict(params), "rune": self._rune.text}
        text = msgspec.json.encode(request)
        if len(text) > MAX_REQUEST:
            raise LocalProtocolError(f"{method}: a request of more than {MAX_REQUEST} bytes")
        sent = False
        with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
            session = await self._session()
            try:
                await session.send(number, text)
                sent = True
                answer = await session.reply(number)
            except BaseException as error:
                await session.aclose()
                if not isinstance(error, Broken):
                    raise
                if sent:
                    raise OutcomeUnknown(f"{method}: the connection was lost before the reply: {error}") from error
                raise Unavailable(f"{method}: lightningd hung up before it had the request: {error}") from error
            await self._keep(session)
            refusal = refused(answer)
            if refusal is not None:
                raise Unavailable(f"{method}: {refusal}")
            return read_reply(method, name, answer, reply)
        raise OutcomeUnknown(f"{method}: no reply in {timeout_s} s") if sent else Unavailable(f"{method}: {self} takes no request")

    async def aclose(self) -> None:
        """Close what is kept for further calls."""
        while self._idle:
            await self._idle.pop().aclose()

    async def _session(self) -> Session:
        """A connection that nobody uses. Raises Unavailable."""
        await self._drop_old()
        while self._idle:
            session = self._idle.pop()
            if await session.alive():
                return session
            await session.aclose()
        with trio.move_on_after(CONNECT_S):
            stream = await connect(*self._address)
            try:
                await greet(stream)
            except BaseException as error:
                await stream.aclose()
                if isinstance(error, Broken):
                    raise Unavailable(f"{self} is another node, or does not speak to us: {error}") from error
                raise
            return Session(stream)
        raise Unavailable(f"lightningd does not answer at {self} within {CONNECT_S:g} s")

    async def _keep(self, session: Session) -> None:
        """For the next call."""
        session.idle_since = trio.current_time()
        self._idle.append(session)
        await self._drop_old()

    async def _drop_old(self) -> None:
        """Close what has been idle for long: lightningd's pings were not answered, and it may have hung up."""
        now = trio.current_time()
        old = [session for session in self._idle if now - session.idle_since > IDLE_S] + self._idle[:-MAX_IDLE]
        self._idle = [session for session in self._idle if session not in old]
        for session in old:
            await session.aclose()


async def greet(stream: NoiseStream) -> None:
    """Exchange `init` (BOLT 1), with no features: we are no node of the network. Its own shows that it has the key of its id. Raises Broken."""
    await stream.send(struct.pack("!HHH", INIT, 0, 0))
    first = await stream.receive()
    if first[:2] != struct.pack("!H", INIT):
        raise Broken("it began with another message than init")


def refused(text: bytes) -> str | None:
    """Why commando itself did not carry out a request; None when it did."""
    try:
        return msgspec.json.decode(text, type=_Refusal).error.message
    except (msgspec.DecodeError, RecursionError):
        return None


@asynccontextmanager
async def open_commando(address: NodeAddress, rune: Rune) -> AsyncIterator[Commando]:
    """The node's methods; connections are made when they are needed, and closed when the block is left."""
    commando = Commando(address, rune)
    try:
        yield commando
    finally:
        await commando.aclose()
