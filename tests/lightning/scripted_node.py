"""A lightningd that says what a test wants it to say: right, wrong, late, half, or not at all."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import trio

Request = dict[str, Any]
Act = Callable[[trio.SocketStream, Request], Awaitable[None]]
NODE_ID = "02" * 33
INFO = {"id": NODE_ID, "alias": "scripted", "version": "v26.06", "network": "regtest", "blockheight": 800_000}


def say(result: object) -> Act:
    """A proper reply."""

    async def act(stream: trio.SocketStream, request: Request) -> None:
        await stream.send_all(msgspec.json.encode({"jsonrpc": "2.0", "id": request["id"], "result": result}) + b"\n\n")

    return act


def fail(code: int, message: str = "scripted") -> Act:
    """An error."""

    async def act(stream: trio.SocketStream, request: Request) -> None:
        error = {"code": code, "message": message}
        await stream.send_all(msgspec.json.encode({"jsonrpc": "2.0", "id": request["id"], "error": error}) + b"\n\n")

    return act


def send(*pieces: bytes) -> Act:
    """These bytes, one write each, `$ID` replaced; then it hangs up."""

    async def act(stream: trio.SocketStream, request: Request) -> None:
        for piece in pieces:
            await stream.send_all(piece.replace(b"$ID", msgspec.json.encode(request["id"])))
            await trio.lowlevel.checkpoint()

    return act


async def hang(stream: trio.SocketStream, request: Request) -> None:
    """Nothing, until the client goes away."""
    while await stream.receive_some(1024):
        pass


class ScriptedNode:
    """Answers each method with the acts scripted for it, the last one again and again; `asked` has every request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[Request] = []
        self.connections = 0
        self.crowd = trio.Event()
        self.crowd_size = 1
        self._acts: defaultdict[str, deque[Act]] = defaultdict(deque)
        self.script("getinfo", say(INFO))
        self.script("waitblockheight", say({"blockheight": INFO["blockheight"]}))
        self.script("getlog", say({"created_at": "0.000000000", "log": []}))

    def script(self, method: str, *acts: Act) -> None:
        """What to answer, in order."""
        self._acts[method] = deque(acts)

    def methods(self) -> list[str]:
        """The methods asked for, in order."""
        return [request["method"] for request in self.asked]

    def params(self, method: str) -> dict[str, Any]:
        """The parameters of the last request of a method."""
        return next(request["params"] for request in reversed(self.asked) if request["method"] == method)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled."""
        listening = trio.socket.socket(trio.socket.AF_UNIX)
        await listening.bind(str(self.path))
        listening.listen(128)
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(self._session, [trio.SocketListener(listening)], handler_nursery=nursery)

    async def _session(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        if self.connections >= self.crowd_size:
            self.crowd.set()
        text = b""
        async with stream:
            try:
                while not text.endswith(b"}") or text.count(b"{") != text.count(b"}"):
                    chunk = await stream.receive_some(65536)
                    if not chunk:
                        return
                    text += chunk
                request = msgspec.json.decode(text)
                self.asked.append(request)
                acts = self._acts[request["method"]]
                act = acts.popleft() if len(acts) > 1 else acts[0] if acts else fail(-32601, f"Unknown command '{request['method']}'")
                await act(stream, request)
            except trio.BrokenResourceError:
                pass
            finally:
                self.connections -= 1
