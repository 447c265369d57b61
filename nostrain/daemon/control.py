"""The control socket: `nostrain-ctl` asks, one JSON line at a time. Its file mode is the access control, as with lightningd's."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import trio

from nostrain.errors import ConfigError, RemoteProtocolError
from nostrain.wire.control import MAX_LINE, Answer, Request, Status, parse_request_untrusted

REQUEST_TIMEOUT_S = 30
MAX_PATH = 107
"""Bytes of a Unix socket's address on Linux."""


class Control:
    """Answers requests with what `status` returns; `stop` is set when someone asks the daemon to end."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status
        self.stop = trio.Event()

    async def serve(self, path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen on `path` (mode 0600) until cancelled, then remove it. Raises ConfigError when that is not possible."""
        listener = trio.SocketListener(bind(path))
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                await trio.serve_listeners(self._session, [listener], handler_nursery=nursery)
        finally:
            path.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call, and we are leaving

    async def _session(self, stream: trio.SocketStream) -> None:
        """One request, one answer; a client that says nothing is let go."""
        try:
            with trio.move_on_after(REQUEST_TIMEOUT_S):
                line = await read_line(stream)
                await stream.send_all(msgspec.json.encode(self._answer(line)) + b"\n")
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    def _answer(self, line: bytes) -> Answer:
        try:
            request = parse_request_untrusted(line)
        except RemoteProtocolError as error:
            return Answer(error=str(error))
        match request:
            case Request(method="status"):
                return Answer(status=self._status())
            case Request(method="metrics"):
                return Answer(metrics=metrics(self._status()))
            case Request(method="stop"):
                self.stop.set()
                return Answer(stopping=True)
            case _:
                return Answer(error=f"no method {request.method!r}; there are status, metrics and stop")


def bind(path: Path) -> trio.socket.SocketType:
    """A listening Unix socket. A dead one in its place is replaced, a live one is an error: one daemon per data folder."""
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigError("control", str(path), f"longer than the {MAX_PATH} bytes of a socket address", "Set control to a shorter path")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
        raise ConfigError("control", str(path), "another daemon answers there", "Stop it, or use another data_dir")
    except (FileNotFoundError, ConnectionRefusedError):
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError("control", str(path), f"cannot be used: {error.strerror}", "Choose another path") from error
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    except OSError as error:
        listening.close()
        raise ConfigError("control", str(path), f"cannot listen there: {error.strerror}", "Check the folder") from error
    finally:
        os.umask(before)
    listening.listen(16)
    return trio.socket.from_stdlib_socket(listening)


async def read_line(stream: trio.SocketStream) -> bytes:
    """Bytes up to the first newline or the end, at most MAX_LINE."""
    data = b""
    while b"\n" not in data and len(data) <= MAX_LINE:
        chunk = await stream.receive_some(65536)
        if not chunk:
            break
        data += chunk
    return data.partition(b"\n")[0]


def metrics(status: Status) -> str:
    """Prometheus text exposition of the counters and of where the daemon stands."""
    lines = [f'nostrain_events_total{{what="{name}"}} {count}' for name, count in sorted(status.counters.items())]
    lines.append(f"nostrain_relays_connected {len(status.relays_connected)}")
    lines.append(f"nostrain_round {status.run.round if status.run else 0}")
    lines.append(f"nostrain_effects_outstanding {len(status.outstanding)}")
    lines.append(f"nostrain_engine_starts_total {status.engine_starts}")
    return "\n".join(lines) + "\n"
