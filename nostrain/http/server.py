"""Serves an ASGI application over HTTP/1.1 with hypercorn's protocol code on trio.

The accept loop is ours, because hypercorn's neither limits connections, nor gives writes a deadline, nor survives an exception in one
connection. TLS belongs to a reverse proxy.
"""

from __future__ import annotations

import errno
import logging
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState
from hypercorn.utils import wrap_app
from starlette.types import ASGIApp

from nostrain.errors import ConfigError
from nostrain.http.guard import Guard
from nostrain.http.limits import ServerLimits
from nostrain.http.stream import BoundedStream

_log = logging.getLogger("nostrain.http")


async def serve(
    app: ASGIApp,
    bind: str,
    *,
    limits: ServerLimits | None = None,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `bind` (`host:port` or `[v6]:port`; port 0 takes a free one) until cancelled.

    Reports the bound URL, e.g. `http://127.0.0.1:4242`, through `task_status`. On cancellation it stops accepting, lets requests in
    progress finish for `shutdown_grace` seconds, cuts the rest, and then ends. Raises ConfigError when it cannot bind.
    """
    limits = limits or ServerLimits()
    listeners = await _listen(bind)
    connections = _Connections(app, limits)
    async with trio.open_nursery() as nursery:
        await nursery.start(connections.hold)
        try:
            task_status.started(_url(listeners[0]))
            await trio.serve_listeners(connections.serve, listeners, handler_nursery=connections.nursery)
        finally:
            await connections.stop()


async def _listen(bind: str) -> list[trio.SocketListener]:
    host, separator, port = bind.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError("bind", bind, "not host:port", "write for example 127.0.0.1:4242")
    try:
        return list(await trio.open_tcp_listeners(int(port), host=host))
    except OSError as error:
        reason = errno.errorcode.get(error.errno or 0, "")
        raise ConfigError(
            "bind", bind, f"cannot listen there: {error.strerror or error} {reason}".rstrip(), "choose a free address"
        ) from error


def _url(listener: trio.SocketListener) -> str:
    host, port = listener.socket.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class _Connections:
    """The open connections, in a nursery that outlives the cancellation of the accept loop by the grace period."""

    nursery: trio.Nursery

    def __init__(self, app: ASGIApp, limits: ServerLimits) -> None:
        self._limits = limits
        self._config = Config()
        self._config.errorlog = _log
        self._config.keep_alive_timeout = limits.header_timeout
        self._config.include_server_header = False
        self._app = wrap_app(cast("ASGIFramework", Guard(app, limits)), 0, "asgi")
        self._context = WorkerContext(None)
        self._open: set[BoundedStream] = set()
        self._stopping = trio.Event()
        self._empty = trio.Event()

    async def hold(self, task_status: trio.TaskStatus[None]) -> None:
        """Own the connections' nursery until `stop`, shielded from the cancellation that triggers the stop."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self.nursery:
                task_status.started()
                await self._stopping.wait()
                self._empty = trio.Event()
                if self._open:
                    with trio.move_on_after(self._limits.shutdown_grace):
                        await self._empty.wait()
                for stream in self._open:
                    stream.abort()
                self.nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """Begin to shut down. No checkpoint: it runs while cancelled."""
        await self._context.terminated.set()
        self._stopping.set()

    async def serve(self, transport: trio.SocketStream) -> None:
        """Serve one connection; whatever goes wrong in it stays in it."""
        stream = BoundedStream(transport, self._limits.send_timeout, self._limits.silence)
        if len(self._open) >= self._limits.max_connections:
            _log.warning("%d connections are open: one more is refused", len(self._open))
            stream.abort()
            return
        self._open.add(stream)
        try:
            tcp = cast("trio.SSLStream[trio.SocketStream]", stream)  # all that hypercorn asks of a stream without TLS
            await TCPServer(self._app, self._config, self._context, ConnectionState(LifespanState()), tcp)
        except* Exception as errors:
            _log.error("a connection failed: %s", errors.exceptions[0], exc_info=errors)
        finally:
            stream.abort()
            self._open.discard(stream)
            if not self._open:
                self._empty.set()
