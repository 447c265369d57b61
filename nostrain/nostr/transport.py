"""One WebSocket to a relay, by trio-websocket; and the little of it that a connection needs, so that tests can put something else there."""

from __future__ import annotations

import email.utils
import math
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Final, Protocol

import trio
import trio_websocket

from nostrain.errors import Unavailable
from nostrain.nostr.messages import MAX_MESSAGE_BYTES
from nostrain.units import UnixTime

RECEIVE_BUFFER_BYTES: Final = 65_536
"""Three times the throughput of trio-websocket's default of 4 KiB."""

QUEUED_MESSAGES: Final = 64
CONNECT_TIMEOUT_S: Final = 15.0
DISCONNECT_TIMEOUT_S: Final = 2.0


class Transport(Protocol):
    """An open connection. Every method raises Unavailable once it is gone."""

    @property
    def date(self) -> UnixTime | None:
        """The relay's clock when it accepted the connection, if it said."""
        ...

    async def send(self, text: str) -> None:
        """Send one text frame; a cancelled send leaves the connection unusable."""
        ...

    async def receive(self) -> str | bytes:
        """The next message."""
        ...

    async def ping(self) -> None:
        """Send a ping, return when it is answered."""
        ...


Connect = Callable[[str], AbstractAsyncContextManager[Transport]]
"""Dials a relay's URL; raises Unavailable. Leaving the context closes the connection."""

Dial = Callable[[str, int], Awaitable[trio.SocketStream]]
"""Opens a TCP connection to a host and port; for addresses of strangers, one that looks where they lead."""


class WebSocketTransport:
    """A Transport over a trio-websocket connection."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self._websocket = websocket

    @property
    def date(self) -> UnixTime | None:
        """The `Date` of the handshake (RFC 9110), None if there is none that can be read."""
        values = [value for name, value in self._websocket.handshake_headers if name == b"date"]
        try:
            return UnixTime(int(email.utils.parsedate_to_datetime(values[0].decode()).timestamp())) if values else None
        except (ValueError, OverflowError):
            return None

    async def send(self, text: str) -> None:
        """Send one text frame."""
        try:
            await self._websocket.send_message(text)
        except trio_websocket.ConnectionClosed as error:
            raise Unavailable(_closing(error)) from error

    async def receive(self) -> str | bytes:
        """The next message, complete and at most MAX_MESSAGE_BYTES long."""
        try:
            return await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise Unavailable(_closing(error)) from error

    async def ping(self) -> None:
        """Ping and wait for the pong."""
        try:
            await self._websocket.ping()
        except trio_websocket.ConnectionClosed as error:
            raise Unavailable(_closing(error)) from error


def _closing(error: trio_websocket.ConnectionClosed) -> str:
    reason = error.reason
    return "the connection was lost" if reason is None else f"closed with {reason.code} {reason.name}"


async def _dial(url: urllib.parse.SplitResult, tcp: Dial) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    host = url.hostname or ""
    if url.scheme == "ws":
        return await tcp(host, url.port or 80)
    plain = await tcp(host, url.port or 443)
    stream = trio.SSLStream(plain, ssl.create_default_context(), server_hostname=host, https_compatible=True)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def websockets(dial: Dial) -> Connect:
    """`open_websocket` over connections that `dial` opens."""
    return partial(open_websocket, dial=dial)


@asynccontextmanager
async def open_websocket(url: str, *, dial: Dial = trio.open_tcp_stream) -> AsyncIterator[Transport]:
    """Connect to `url` (ws:// or wss://), close on leaving.

    Raises Unavailable whatever goes wrong below us: beside its documented errors, trio-websocket lets through exceptions of wsproto, h11
    and ssl that a hostile relay can provoke. What the body raises passes unchanged.
    """
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery, _websocket(url, nursery, dial) as websocket:
            try:
                yield WebSocketTransport(websocket)
            except BaseException as error:
                failure = error
                raise
    except BaseExceptionGroup as group:
        if isinstance(failure, Exception):
            raise failure from None
        broken, cancelled = group.split(Exception)
        if cancelled is not None or broken is None:
            raise (cancelled or group) from None
        raise Unavailable(_first(broken)) from group


@asynccontextmanager
async def _websocket(url: str, nursery: trio.Nursery, dial: Dial) -> AsyncIterator[trio_websocket.WebSocketConnection]:
    """The connection, on a stream that we own: trio-websocket's own dialling leaves the socket open whenever the other side fails first.

    It also waits in silence when the other side hangs up during the handshake: hence the time limit.
    """
    parts = urllib.parse.urlsplit(url)
    with trio.fail_after(CONNECT_TIMEOUT_S) as connecting:
        stream = await _dial(parts, dial)
        try:
            websocket = await trio_websocket.wrap_client_stream(
                nursery,
                stream,
                parts.netloc.rpartition("@")[2],
                (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
                message_queue_size=QUEUED_MESSAGES,
                max_message_size=MAX_MESSAGE_BYTES,
                receive_buffer_size=RECEIVE_BUFFER_BYTES,
            )
            connecting.deadline = math.inf
            yield websocket
            with trio.move_on_after(DISCONNECT_TIMEOUT_S):
                await websocket.aclose()
        finally:
            await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()


def _first(group: BaseExceptionGroup[Exception]) -> str:
    """One line for the first of the errors that ended a connection."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, trio.TooSlowError):
        return f"no connection within {CONNECT_TIMEOUT_S:g} s"
    library = type(error).__module__.partition(".")[0]  # wsproto has a LocalProtocolError too
    return f"{library}.{type(error).__name__}: {str(error).splitlines()[0] if str(error) else error.__cause__ or 'no reason given'}"
