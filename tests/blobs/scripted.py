"""Scripted servers on loopback, which speak raw bytes, and a client with its store."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import trio

from nostrain.blobs.client import BlossomClient
from nostrain.blobs.store import BlobStore
from nostrain.blobs.tuning import Tuning
from nostrain.hashes import sha256_hex
from nostrain.ports.blobs import ServerLists
from nostrain.units import Digest

from .blossom_world import StillClock, signer

DATA = bytes(range(256)) * 1000
DIGEST = Digest(sha256_hex(DATA))
IMPATIENT = Tuning(attempts=2, backoff=0.001, silence=0.2, grace=0.2, min_rate=1 << 30)

Script = Callable[["Request", trio.SocketStream], Awaitable[None]]


@dataclass
class Request:
    """The head of a request: its first line, and its headers in lower case."""

    line: str
    headers: dict[str, str]


@dataclass
class Scripted:
    """A server on loopback that answers its n-th request as the n-th script says (the last one repeats) and hangs up."""

    url: str
    scripts: list[Script]
    requests: list[Request] = field(default_factory=list)

    async def handle(self, stream: trio.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                got = await stream.receive_some(65_536)
                if not got:
                    return
                head += got
            line, *rest = head.split(b"\r\n\r\n")[0].decode().split("\r\n")
            request = Request(line, {name.lower(): value.strip() for name, _, value in (header.partition(":") for header in rest)})
            self.requests.append(request)
            try:
                await self.scripts[min(len(self.requests), len(self.scripts)) - 1](request, stream)
            except trio.BrokenResourceError:
                pass


def reply(status: str, body: bytes = b"", *, length: int | None = None, sent: int | None = None, headers: str = "") -> Script:
    """Answer `status` with `body`; `length` to declare another length (-1: none), `sent` to break off after so many bytes."""

    async def script(request: Request, stream: trio.SocketStream) -> None:
        declared = "" if length == -1 else f"Content-Length: {len(body) if length is None else length}\r\n"
        head = f"HTTP/1.1 {status}\r\n{declared}{headers}Connection: close\r\n\r\n"
        await stream.send_all(head.encode() + (b"" if request.line.startswith("HEAD") else body[:sent]))

    return script


async def resume(request: Request, stream: trio.SocketStream) -> None:
    """Serve DATA as asked for, whole or from an offset."""
    start = int(request.headers.get("range", "bytes=0-")[6:-1])
    headers = f"Content-Range: bytes {start}-{len(DATA) - 1}/{len(DATA)}\r\n"
    await reply("206 Partial Content" if start else "200 OK", DATA[start:], headers=headers if start else "")(request, stream)


async def stall(request: Request, stream: trio.SocketStream) -> None:
    """Begin an answer and say nothing more."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
    await stream.receive_some(1)


async def trickle(request: Request, stream: trio.SocketStream) -> None:
    """A byte now and then: never silent, never done, until the peer hangs up."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    with trio.CancelScope() as hung_up:
        while not hung_up.cancel_called:
            await stream.send_all(b"x")
            with trio.move_on_after(0.05):
                await stream.receive_some(1)
                hung_up.cancel()


async def endless(request: Request, stream: trio.SocketStream) -> None:
    """Bytes without end, declared by nothing."""
    await stream.send_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while True:
        await stream.send_all(bytes(65_536))


class World:
    """A client with its store, and as many scripted servers as a test wants."""

    def __init__(self, folder: Path, nursery: trio.Nursery) -> None:
        self.folder, self.nursery = folder, nursery
        self.store = BlobStore(folder / "store", StillClock(), reserve=0)
        self.clients: list[BlossomClient] = []

    async def server(self, *scripts: Script) -> Scripted:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Scripted(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", list(scripts))
        self.nursery.start_soon(trio.serve_listeners, server.handle, listeners)
        return server

    def client(
        self, *servers: Scripted, tuning: Tuning = IMPATIENT, local_urls: tuple[str, ...] = (), lists: ServerLists | None = None
    ) -> BlossomClient:
        urls = [server.url for server in servers]
        self.clients.append(
            BlossomClient(self.store, urls, signer("alice"), StillClock(), tuning=tuning, local_urls=local_urls, lists=lists)
        )
        return self.clients[-1]

    def leftovers(self) -> list[str]:
        return [path.name for path in (self.folder / "store").glob("*/*") if path.name != DIGEST]
