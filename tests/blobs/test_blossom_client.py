"""The Blossom client against servers that lie, break off, stall, never end, or send it elsewhere. The servers speak raw bytes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from nostrain.blobs import incoming as incoming_module
from nostrain.blobs.incoming import StorageFull
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.urls import parse_url_untrusted
from nostrain.errors import RemoteProtocolError, Unavailable

from .scripted import DATA, DIGEST, Request, Script, World, endless, reply, resume, stall, trickle


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
        "http://xn--a.example/",
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
