"""The HTTP host with an application that waits, floods, fails and counts, for peers that do their worst."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio
import trio.testing
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from nostrain.http.limits import ServerLimits
from nostrain.http.server import serve


class Application:
    """What the tests ask for."""

    def __init__(self) -> None:
        self.entered, self.release, self.ended = trio.Event(), trio.Event(), trio.Event()
        self.disconnects = 0
        routes = [
            Route("/hello", self.hello),
            Route("/wait", self.wait),
            Route("/fail", self.fail),
            Route("/flood", Flood(self)),
            Route("/early", self.early, methods=["PUT"]),
            Route("/count", self.count, methods=["PUT"]),
        ]
        self.asgi = Starlette(routes=routes)

    async def hello(self, request: Request) -> Response:
        return PlainTextResponse("hello")

    async def wait(self, request: Request) -> Response:
        self.entered.set()
        await self.release.wait()
        return PlainTextResponse("waited")

    async def fail(self, request: Request) -> Response:
        raise ValueError("a mistake of ours")

    async def early(self, request: Request) -> Response:
        return PlainTextResponse("no", 403)

    async def count(self, request: Request) -> Response:
        size = 0
        try:
            async for chunk in request.stream():
                size += len(chunk)
        except ClientDisconnect:
            self.disconnects += 1
            return PlainTextResponse("gone", 408)
        return PlainTextResponse(str(size))


class Zeros:
    """A response body without end."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return bytes(1 << 16)


class Flood:
    """An endpoint that answers without end, and tells when it is stopped all the same."""

    def __init__(self, app: Application) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.app.entered.set()
        try:
            await StreamingResponse(Zeros())(scope, receive, send)
        finally:
            self.app.ended.set()


class Host:
    def __init__(self, url: str, app: Application, scope: trio.CancelScope) -> None:
        self.url, self.app, self.scope = url, app, scope
        self.port = int(url.rpartition(":")[2])

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def ask(self, text: str) -> bytes:
        """Send raw text, and read until the host hangs up."""
        async with await self.connect() as stream:
            await stream.send_all(text.encode())
            return await read_all(stream)


async def read_all(stream: trio.SocketStream) -> bytes:
    received = b""
    while got := await stream.receive_some(65_536):
        received += got
    return received


@asynccontextmanager
async def hosted(limits: ServerLimits) -> AsyncIterator[Host]:
    """A running host, which must end by itself within two seconds of being told to."""
    app = Application()
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(partial(serve, limits=limits), app.asgi, "127.0.0.1:0")
        with trio.CancelScope(shield=True):
            yield Host(url, app, nursery.cancel_scope)
        nursery.cancel_scope.cancel()
        began = trio.current_time()
    assert trio.current_time() - began < 2
