"""The Blossom client against servers that lie, break off, stall, never end, or send it elsewhere. The servers speak raw bytes."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from nostrain.blobs import incoming as incoming_module
from nostrain.blobs.client import BlossomClient
from nostrain.blobs.incoming import StorageFull
from nostrain.blobs.store import BlobStore
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.urls import parse_url_untrusted
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.hashes import sha256_hex
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

    def client(self, *servers: Scripted, tuning: Tuning = IMPATIENT, local_urls: tuple[str, ...] = ()) -> BlossomClient:
        urls = [server.url for server in servers]
        self.clients.append(BlossomClient(self.store, urls, signer("alice"), StillClock(), tuning=tuning, local_urls=local_urls))
        return self.clients[-1]

    def leftovers(self) -> list[str]:
        return [path.name for path in (self.folder / "store").glob("*/*") if path.name != DIGEST]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        yield world
        for client in world.clients:
            async with client:
                pass
        nursery.cancel_scope.cancel()
    assert world.leftovers() == []
    world.store.close()


def source(world: World) -> Path:
    path = world.folder / "source.bin"
    path.write_bytes(DATA)
    return path


async def test_a_broken_transfer_is_resumed_where_it_broke(world: World) -> None:
    server = await world.server(reply("200 OK", DATA, sent=100_000), resume)
    path = await world.client().get(DIGEST, [f"{server.url}/{DIGEST}"], len(DATA))
    assert path.read_bytes() == DATA
    assert [request.headers.get("range") for request in server.requests] == [None, "bytes=100000-"]


async def test_a_server_without_ranges_starts_again(world: World) -> None:
    server = await world.server(reply("200 OK", DATA, sent=100_000), reply("200 OK", DATA))
    assert (await world.client().get(DIGEST, [f"{server.url}/{DIGEST}"], len(DATA))).read_bytes() == DATA


async def test_a_blob_that_shrank_is_asked_for_again(world: World) -> None:
    server = await world.server(reply("200 OK", DATA, sent=100_000), reply("416 Range Not Satisfiable"), reply("200 OK", DATA))
    assert (await world.client().get(DIGEST, [f"{server.url}/{DIGEST}"], len(DATA))).read_bytes() == DATA


async def test_another_range_than_was_asked_for_is_refused(world: World) -> None:
    wrong = reply("206 Partial Content", DATA[5:], headers=f"Content-Range: bytes 5-{len(DATA) - 1}/{len(DATA)}\r\n")
    server = await world.server(reply("200 OK", DATA, sent=100_000), wrong)
    with pytest.raises(RemoteProtocolError, match="range"):
        await world.client().get(DIGEST, [f"{server.url}/{DIGEST}"], len(DATA))


async def test_breaking_off_without_end_is_given_up(world: World) -> None:
    async def one_more(request: Request, stream: trio.SocketStream) -> None:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        headers = f"Content-Range: bytes {start}-{len(DATA) - 1}/{len(DATA)}\r\n"
        await reply("206 Partial Content" if start else "200 OK", DATA[start:], sent=1, headers=headers)(request, stream)

    server = await world.server(one_more)
    with pytest.raises(Unavailable, match="broke off"):
        await world.client().get(DIGEST, [f"{server.url}/{DIGEST}"], len(DATA))
    assert len(server.requests) < 40


async def test_the_next_source_is_asked_when_one_lies(world: World) -> None:
    liar, honest = await world.server(reply("200 OK", b"lies")), await world.server(resume)
    path = await world.client().get(DIGEST, [f"{liar.url}/{DIGEST}", f"{honest.url}/{DIGEST}"], len(DATA))
    assert path.read_bytes() == DATA


async def test_a_poisoned_beginning_does_not_spoil_the_next_source(world: World) -> None:
    poisoner, honest = await world.server(reply("200 OK", bytes(len(DATA)), sent=50_000)), await world.server(resume)
    path = await world.client().get(DIGEST, [f"{poisoner.url}/x", f"{honest.url}/x"], len(DATA))
    assert path.read_bytes() == DATA


async def test_a_liar_is_not_asked_twice(world: World) -> None:
    liar, silent = await world.server(reply("200 OK", b"lies")), await world.server(reply("503 Service Unavailable"))
    with pytest.raises(Unavailable, match="HTTP 503"):
        await world.client().get(DIGEST, [f"{liar.url}/x", f"{silent.url}/x"], len(DATA))
    assert (len(liar.requests), len(silent.requests)) == (1, 2)


@pytest.mark.parametrize(
    "script", [endless, reply("200 OK", length=10 << 30), reply("200 OK", DATA, length=-1)], ids=["endless", "10 GB", "undeclared"]
)
async def test_too_much_is_cut_off(world: World, script: Script) -> None:
    server = await world.server(script)
    with pytest.raises(RemoteProtocolError, match=r"longer than|at most"):
        await world.client(tuning=Tuning()).get(DIGEST, [f"{server.url}/x"], len(DATA) - 1)


@pytest.mark.parametrize("script", [stall, trickle])
async def test_too_slow_is_given_up(world: World, script: Script) -> None:
    server = await world.server(script)
    with pytest.raises(Unavailable):
        await world.client().get(DIGEST, [f"{server.url}/x"], len(DATA))
    assert len(server.requests) >= 2


@pytest.mark.parametrize("status", ["404 Not Found", "429 Too Many Requests", "500 Internal Server Error"])
async def test_what_may_come_later_is_asked_for_again(world: World, status: str) -> None:
    server = await world.server(reply(status), resume)
    assert (await world.client().get(DIGEST, [f"{server.url}/x"], len(DATA))).read_bytes() == DATA


@pytest.mark.parametrize(
    "script", [reply("403 Forbidden"), reply("200 OK", DATA, headers="Content-Encoding: gzip\r\n"), reply("206 Partial", DATA)]
)
async def test_what_will_not_get_better_is_not(world: World, script: Script) -> None:
    server = await world.server(script)
    with pytest.raises(RemoteProtocolError):
        await world.client().get(DIGEST, [f"{server.url}/x"], len(DATA))
    assert len(server.requests) == 1


async def test_rubbish_instead_of_http_is_unavailable(world: World) -> None:
    async def rubbish(request: Request, stream: trio.SocketStream) -> None:
        await stream.send_all(b"\x00\xff not http\r\n\r\n")

    server = await world.server(rubbish)
    with pytest.raises(Unavailable):
        await world.client().get(DIGEST, [f"{server.url}/x"], len(DATA))


async def test_redirects_to_the_same_blob_are_followed(world: World) -> None:
    target = await world.server(resume)
    server = await world.server(reply("307 Temporary Redirect", headers=f"Location: {target.url}/cdn/{DIGEST}.bin\r\n"))
    assert (await world.client().get(DIGEST, [f"{server.url}/{DIGEST}"], len(DATA))).read_bytes() == DATA


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/other", f"file:///{DIGEST}", f"/{DIGEST}", "", "http://["])
async def test_redirects_elsewhere_or_in_circles_are_not(world: World, location: str) -> None:
    server = await world.server(reply("302 Found", headers=f"Location: {location}\r\n"))
    with pytest.raises(RemoteProtocolError, match=r"redirect|URL"):
        await world.client().get(DIGEST, [f"{server.url}/{DIGEST}"], len(DATA))


async def test_our_own_servers_are_asked_too(world: World) -> None:
    server = await world.server(resume)
    assert (await world.client(server).get(DIGEST, [], len(DATA))).read_bytes() == DATA
    assert server.requests[0].line == f"GET /{DIGEST} HTTP/1.1"


async def test_a_disk_that_fills_up_is_said_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(incoming_module, "write_all", full)
    server = await world.server(resume)
    with pytest.raises(StorageFull):
        await world.client().get(DIGEST, [f"{server.url}/x"], len(DATA))
    assert len(server.requests) == 1


async def test_cancelling_a_download_leaves_nothing_and_frees_the_blob(world: World) -> None:
    asked = trio.Event()

    async def tell_and_stall(request: Request, stream: trio.SocketStream) -> None:
        asked.set()
        await stall(request, stream)

    server = await world.server(tell_and_stall, resume)
    client = world.client(tuning=Tuning())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.get, DIGEST, [f"{server.url}/x"], len(DATA))
        await asked.wait()
        nursery.cancel_scope.cancel()
    assert (await client.get(DIGEST, [f"{server.url}/x"], len(DATA))).read_bytes() == DATA


async def test_a_blob_that_is_there_is_not_sent(world: World) -> None:
    server = await world.server(reply("200 OK", DATA))
    assert await world.client(server).put(source(world), DIGEST) == (f"{server.url}/{DIGEST}",)
    assert [request.line for request in server.requests] == [f"HEAD /{DIGEST} HTTP/1.1"]


async def test_a_busy_server_is_asked_again(world: World) -> None:
    server = await world.server(reply("404 Not Found"), reply("503 Slow Down"), reply("404 Not Found"), reply("201 Created"))
    assert await world.client(server).put(source(world), DIGEST) == (f"{server.url}/{DIGEST}",)
    put = server.requests[-1]
    assert (put.line, put.headers["x-sha-256"], put.headers["content-length"]) == ("PUT /upload HTTP/1.1", DIGEST, str(len(DATA)))


async def test_one_server_of_two_is_enough(world: World) -> None:
    refusing = await world.server(reply("404 Not Found"), reply("403 Forbidden", headers="X-Reason: no thanks\r\n"))
    taking = await world.server(reply("404 Not Found"), reply("201 Created"))
    assert await world.client(refusing, taking).put(source(world), DIGEST) == (f"{taking.url}/{DIGEST}",)


async def test_an_upload_that_stalls_is_given_up(world: World) -> None:
    async def silent(request: Request, stream: trio.SocketStream) -> None:
        while await stream.receive_some(65_536):
            pass

    server = await world.server(silent)
    with pytest.raises(Unavailable):
        await world.client(server).put(source(world), DIGEST)


async def test_our_own_server_shares_the_store(world: World) -> None:
    client = world.client(local_urls=("http://127.0.0.1:9/",))
    assert await client.put(source(world), DIGEST) == (f"http://127.0.0.1:9/{DIGEST}",)
    assert world.store.path(DIGEST) is not None


async def test_without_any_server_a_blob_stays_here(world: World) -> None:
    with pytest.raises(Unavailable, match="none is configured"):
        await world.client().put(source(world), DIGEST)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "http://",
        "http:///x",
        "//host/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://user:pass@host/",
        "http://host:0/",
        "http://host:99999/",
        "http://[::1/",
        "http://h\x00st/",
        "http://a..b/",
        f"http://{'a' * 64}.example/",
        f"http://{'a' * 3000}",
    ],
)
def test_urls_that_are_not_asked(url: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_url_untrusted(url)


@given(st.text() | st.text().map("http://{}".format) | st.text().map("https://host/{}".format))
def test_any_text_is_a_url_or_is_refused(text: str) -> None:
    try:
        url = parse_url_untrusted(text)
    except RemoteProtocolError:
        return
    assert url.scheme in ("http", "https")
    assert url.host
