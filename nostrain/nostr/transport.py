"""One WebSocket to a relay, by trio-websocket; and the little of it that a connection needs, so that tests can put something else there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import trio_websocket

from nostrain.errors import Unavailable
from nostrain.nostr.messages import MAX_MESSAGE_BYTES

RECEIVE_BUFFER_BYTES: Final = 65_536
"""Three times the throughput of trio-websocket's default of 4 KiB."""

QUEUED_MESSAGES: Final = 64
CONNECT_TIMEOUT_S: Final = 15.0
DISCONNECT_TIMEOUT_S: Final = 2.0


class Transport(Protocol):
    """An open connection. Every method raises Unavailable once it is gone."""

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


class WebSocketTransport:
    """A Transport over a trio-websocket connection."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self._websocket = websocket

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


@asynccontextmanager
async def open_websocket(url: str) -> AsyncIterator[Transport]:
    """Connect to `url` (ws:// or wss://), close on leaving.

    Raises Unavailable whatever goes wrong below us: beside its documented errors, trio-websocket lets through exceptions of wsproto, h11
    and ssl that a hostile relay can provoke. What the body raises passes unchanged.
    """
    failure: BaseException | None = None
    try:
        async with trio_websocket.open_websocket_url(
            url,
            message_queue_size=QUEUED_MESSAGES,
            max_message_size=MAX_MESSAGE_BYTES,
            receive_buffer_size=RECEIVE_BUFFER_BYTES,
            connect_timeout=CONNECT_TIMEOUT_S,
            disconnect_timeout=DISCONNECT_TIMEOUT_S,
        ) as websocket:
            try:
                yield WebSocketTransport(websocket)
            except BaseException as error:
                failure = error
                raise
    except Exception as error:
        if isinstance(failure, Exception):
            raise failure from None
        raise Unavailable(f"{type(error).__name__}: {error.__cause__ or error}") from error
