"""JSON-RPC 2.0 to lightningd: a connection per call, so that a call that waits for days is in nobody's way.

A request's last byte closes its JSON object: one that was not sent whole was not carried out. After that, anything but a proper reply leaves the
outcome unknown. lightningd ends every reply with an empty line; inside one there is none.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, TypeVar

import msgspec
import trio

from nostrain.errors import NostrainError, OutcomeUnknown, Unavailable

MAX_REPLY: Final = 64 << 20
CONNECTING: Final = 32
"""Connections opened at one time: lightningd accepts them one by one, from a queue of 128."""
QUEUE_FULL_S: Final = 0.02
_END: Final = b"\n\n"
_CHUNK: Final = 65536

T = TypeVar("T")


class ClnError(NostrainError):
    """lightningd, or a plugin of it, answered with an error. The codes are in Core Lightning's `common/jsonrpc_errors.h`."""

    def __init__(self, method: str, code: int, message: str) -> None:
        self.method, self.code, self.message = method, code, message
        super().__init__(f"{method}: {message} (code {code})")


class _Error(msgspec.Struct, frozen=True):
    message: str
    code: int = -1


class _Reply(msgspec.Struct, frozen=True):
    id: str | int | None = None
    result: msgspec.Raw = msgspec.Raw()
    error: _Error | None = None


class Rpc(Protocol):
    """The methods of one lightningd, by name; `str()` says where it is. On its Unix socket (`ClnRpc`), or with a rune (`commando.Commando`)."""

    async def call(self, method: str, params: Mapping[str, object], reply: type[T], *, timeout_s: float | None) -> T:
        """See `ClnRpc.call`."""


class ClnRpc:
    """The methods of one lightningd, by name: all of them, for whoever may open its socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self._connecting = trio.CapacityLimiter(CONNECTING)

    def __str__(self) -> str:
        return str(self._path)

    async def call(self, method: str, params: Mapping[str, object], reply: type[T], *, timeout_s: float | None) -> T:
        """Call `method` and read its result as `reply`, ignoring what that does not know.

        Raises Unavailable: nothing was asked. OutcomeUnknown: it was asked, and there was no usable reply within `timeout_s` (None: wait for
        ever). ClnError: the method failed. Cancellation means the same as OutcomeUnknown.
        """
        number = f"nostrain:{method}#{next(self._numbers)}"
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": dict(params)}
        sent = False
        with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
            async with self._connecting:
                stream = await self._connect()
                await self._send(stream, method, msgspec.json.encode(request))
            sent = True
            async with stream:
                return read_reply(method, number, await self._receive(stream, method), reply)
        raise OutcomeUnknown(f"{method}: no reply in {timeout_s} s") if sent else Unavailable(f"{method}: {self._path} takes no request")

    async def _connect(self) -> trio.SocketStream:
        """A connection. While lightningd's queue of new ones is full, Linux refuses at once, which trio takes for success: so we look, and try again."""
        while True:
            try:
                stream = await trio.open_unix_socket(self._path)
            except (OSError, RuntimeError) as error:
                raise Unavailable(f"lightningd does not answer at {self._path}: {error}") from error
            try:
                stream.socket.getpeername()
            except OSError as error:
                await trio.aclose_forcefully(stream)
                if error.errno != errno.ENOTCONN:
                    raise Unavailable(f"lightningd does not answer at {self._path}: {error}") from error
                await trio.sleep(QUEUE_FULL_S)
            else:
                return stream

    async def _send(self, stream: trio.SocketStream, method: str, request: bytes) -> None:
        """Send the request, or close the stream."""
        try:
            await stream.send_all(request)
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(stream)
            raise Unavailable(f"{method}: lightningd hung up before it had the request") from error
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise

    async def _receive(self, stream: trio.SocketStream, method: str) -> bytes:
        """The bytes of one reply."""
        buffer = bytearray()
        while True:
            try:
                chunk = await stream.receive_some(_CHUNK)
            except trio.BrokenResourceError as error:
                raise OutcomeUnknown(f"{method}: the connection broke before the reply") from error
            if not chunk:
                raise OutcomeUnknown(f"{method}: lightningd hung up {'in' if buffer else 'before'} its reply")
            seam = max(0, len(buffer) - 1)
            buffer += chunk
            end = buffer.find(_END, seam)
            if end >= 0:
                return bytes(buffer[:end])
            if len(buffer) > MAX_REPLY:
                raise OutcomeUnknown(f"{method}: a reply of more than {MAX_REPLY} bytes")


def read_reply(method: str, number: str, text: bytes, reply: type[T]) -> T:
    """The result in a reply to the request `number`. Raises ClnError, and OutcomeUnknown for anything but a proper reply."""
    try:
        answer = msgspec.json.decode(text, type=_Reply)
        if answer.id != number:
            raise OutcomeUnknown(f"{method}: the reply is to another request ({answer.id!r:.64})")
        if answer.error is not None:
            raise ClnError(method, answer.error.code, answer.error.message)
        if not bytes(answer.result):
            raise OutcomeUnknown(f"{method}: the reply has neither result nor error")
        return msgspec.json.decode(answer.result, type=reply)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise OutcomeUnknown(f"{method}: the reply cannot be read: {error}") from error
