"""An ASGI layer that bounds request bodies in size and time, and answers early without hanging.

hypercorn passes a body to the application through a queue of ten messages and blocks when nobody takes them, even while it closes
the connection. So whatever the application leaves unread is read here and dropped until the connection is gone.
"""

from __future__ import annotations

import logging
from math import inf
from typing import Final

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nostrain.http.limits import ServerLimits

_log = logging.getLogger("nostrain.http")

_WITH_BODY: Final = frozenset({"PUT", "POST", "PATCH"})
_DISCONNECT: Final[Message] = {"type": "http.disconnect"}


class Guard:
    """Wraps `app`. A body that comes too slowly or is too long looks to the application like a peer that hung up.

    An exception of the application is logged with its traceback and answered with 500; it ends nothing but its own request.
    """

    def __init__(self, app: ASGIApp, limits: ServerLimits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. WebSockets are refused."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        declared = _declared_size(scope)
        refusal = None
        if not scope["http_version"].startswith("1"):
            refusal = 505  # a peer that withholds HTTP/2 window stalls a response where no write deadline sees it
        elif declared is not None and scope["method"] not in _WITH_BODY:
            refusal = 400
        elif declared is not None and declared > self._limits.max_body:
            refusal = 413
        app = self._app if refusal is None else _Refusal(refusal)
        await _Exchange(receive, send, self._limits, declared).run(app, scope)


class _Refusal:
    def __init__(self, status: int) -> None:
        self._status = status

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"0"), (b"access-control-allow-origin", b"*")]  # BUD-01: on all responses
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _declared_size(scope: Scope) -> int | None:
    """The body's Content-Length, 0 if it is chunked, None if there is no body. The HTTP parser has checked the header's form."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return 0
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() and int(length) else None


class _Exchange:
    """One request and its response."""

    def __init__(self, receive: Receive, send: Send, limits: ServerLimits, declared: int | None) -> None:
        self._receive, self._send, self._limits = receive, send, limits
        self._deadline = inf if declared is None else trio.current_time() + limits.body_timeout + declared / limits.min_rate
        self._unread = declared is not None
        self._settled = trio.Event()  # the body is complete, or its sender is gone
        self._gone = trio.Event()
        self._received = 0
        self._started = self._dropping = False
        self._nursery: trio.Nursery

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the application, then stay until nothing can block the connection any more."""
        async with trio.open_nursery() as self._nursery:
            try:
                await app(scope, self.receive, self.send)
            except Exception:
                _log.exception("%s %s: the application failed", scope["method"], scope["path"])
                if not self._started:
                    await _Refusal(500)(scope, self.receive, self.send)
            if self._dropping:
                await self._gone.wait()
            self._nursery.cancel_scope.cancel()

    async def receive(self) -> Message:
        """The application's view of the request."""
        if not self._unread:
            return await self._take()
        with trio.move_on_at(self._deadline):
            return await self._take()
        return _DISCONNECT

    async def _take(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._gone.set()
            self._settled.set()
            return message
        self._received += len(message.get("body", b""))
        if not message.get("more_body", False):
            self._unread = False
            self._settled.set()
        return _DISCONNECT if self._received > self._limits.max_body else message

    async def send(self, message: Message) -> None:
        """The application's way to the peer."""
        if message["type"] == "http.response.start":
            self._started = True
            if self._unread:
                self._dropping = True
                self._nursery.start_soon(self._drop)
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        elif self._dropping and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            with trio.move_on_after(self._limits.linger):
                await self._settled.wait()
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await self._send(message)

    async def _drop(self) -> None:
        while not self._gone.is_set():
            await self._take()
