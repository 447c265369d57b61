"""The control socket: `nostrain-ctl` asks, one JSON line at a time. Its file mode is the access control, as with lightningd's."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import trio

from nostrain.daemon.status import metrics
from nostrain.errors import ConfigError, RemoteProtocolError, Unavailable
from nostrain.protocol.export import RunModel
from nostrain.wire.control import MAX_LINE, Answer, ChannelPlan, Earnings, LedgerPage, Request, Status, Wallet, parse_request_untrusted

log = logging.getLogger("nostrain.control")

REQUEST_TIMEOUT_S = 30.0
PROBE_TIMEOUT_S = 2.0
MAX_SESSIONS = 32
MAX_PATH = 107
"""Bytes of a Unix socket's address on Linux."""


class Control:
    """Answers requests with what `status`, `wallet`, `earnings`, `ledger`, `plan` and `model` return; `stop` is set when someone asks the daemon to end."""

    def __init__(
        self,
        status: Callable[[], Status],
        wallet: Callable[[], Awaitable[Wallet]] | None = None,
        earnings: Callable[[], Awaitable[Earnings]] | None = None,
        ledger: Callable[[int], Awaitable[LedgerPage]] | None = None,
        plan: Callable[[int, int], ChannelPlan] | None = None,
        model: Callable[[], Awaitable[RunModel]] | None = None,
    ) -> None:
        self._status, self._wallet, self._earnings, self._ledger, self._plan, self._model = status, wallet, earnings, ledger, plan, model
        self._sessions = 0
        self.stop = trio.Event()

    async def serve(self, path: Path, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen on `path` (mode 0600) until cancelled, then remove it. Raises ConfigError when that is not possible."""
        listener = trio.SocketListener(bind(path))
        made = path.stat().st_ino  # noqa: ASYNC240 - one system call
        try:
            async with trio.open_nursery() as nursery:
                task_status.started()
                await trio.serve_listeners(self._session, [listener], handler_nursery=nursery)
        finally:
            remove(path, made)

    async def _session(self, stream: trio.SocketStream) -> None:
        """One request, one answer; a client that says nothing is let go, and so is one too many."""
        self._sessions += 1
        try:
            if self._sessions <= MAX_SESSIONS:
                with trio.move_on_after(REQUEST_TIMEOUT_S):
                    line = await read_line(stream)
                    await stream.send_all(msgspec.json.encode(await self._answer(line)) + b"\n")
        except trio.BrokenResourceError:
            pass
        finally:
            self._sessions -= 1
            await trio.aclose_forcefully(stream)

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = parse_request_untrusted(line)
        except RemoteProtocolError as error:
            return Answer(error=str(error))
        try:
            return await self._do(request)
        except Unavailable as error:
            return Answer(error=str(error))
        except Exception as error:  # looking at a daemon must not end it
            log.exception("the request %r failed", request.method[:40])
            return Answer(error=f"{type(error).__name__}: {error}")

    async def _do(self, request: Request) -> Answer:
        match request.method:
            case "status":
                return Answer(status=self._status())
            case "wallet" if self._wallet is not None:
                return Answer(wallet=await self._wallet())
            case "plan" if self._plan is not None:
                return Answer(plan=self._plan(request.workers, request.rounds))
            case "earnings" if self._earnings is not None:
                return Answer(earnings=await self._earnings())
            case "ledger" if self._ledger is not None:
                return Answer(ledger=await self._ledger(request.start))
            case "model" if self._model is not None:
                return Answer(model=await self._model())
            case "metrics":
                return Answer(metrics=metrics(self._status()))
            case "stop":
                self.stop.set()
                return Answer(stopping=True)
            case other:
                return Answer(error=f"no method {other[:40]!r}; there are status, wallet, plan, earnings, ledger, model, metrics and stop")


def bind(path: Path) -> trio.socket.SocketType:
    """A listening Unix socket. A dead one in its place is replaced; a live one, or any other file, is an error."""
    if len(os.fsencode(path)) > MAX_PATH:
        raise ConfigError("control", str(path), f"longer than the {MAX_PATH} bytes of a socket address", "Set control to a shorter path")
    try:
        clear(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            # On Linux the file gets the mode that the socket has before; the umask is shared with threads that write files meanwhile.
            with contextlib.suppress(OSError):
                os.fchmod(listening.fileno(), 0o600)
            listening.bind(str(path))
            path.chmod(0o600)
            listening.listen(16)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise ConfigError("control", str(path), f"cannot listen there: {error.strerror or error}", "Check the folder") from error
    return trio.socket.from_stdlib_socket(listening)


def clear(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises ConfigError for anything else that is there; OSError."""
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_socket():
        raise ConfigError("control", str(path), "a file that is no socket is there", "Move it away, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_TIMEOUT_S)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass
    raise ConfigError("control", str(path), "another daemon listens there", "Stop it, or use another path")


def remove(path: Path, inode: int) -> None:
    """Remove our socket, unless the path is another's by now."""
    with contextlib.suppress(OSError):
        if path.stat().st_ino == inode:
            path.unlink()


async def read_line(stream: trio.SocketStream) -> bytes:
    """Bytes up to the first newline or the end, at most MAX_LINE."""
    data = bytearray()
    while b"\n" not in data and len(data) <= MAX_LINE:
        chunk = await stream.receive_some(65536)
        if not chunk:
            break
        data += chunk
    return bytes(data).partition(b"\n")[0]
