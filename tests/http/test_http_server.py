"""The HTTP host against peers that send too much, too slowly or nonsense, that stop reading, or that stay when it shuts down."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import httpx
import pytest
import trio
import trio.testing

from nostrain.errors import ConfigError
from nostrain.http.limits import ServerLimits
from nostrain.http.server import serve
from tests.http.running_host import Application, Host, hosted, read_all

QUICK = ServerLimits(
    max_connections=4,
    header_timeout=0.2,
    body_timeout=0.2,
    send_timeout=0.2,
    silence=0.6,
    max_body=10_000_000,
    linger=0.1,
    shutdown_grace=0.2,
)


async def read_until(stream: trio.SocketStream, wanted: bytes) -> None:
    received = b""
    while wanted not in received:
        got = await stream.receive_some(65_536)
        assert got, f"{wanted!r} never came, only {received!r}"
        received += got


async def send_without_end(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(bytes(100_000))


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    async with hosted(QUICK) as host:
        yield host


async def still_serves(host: Host) -> bool:
    async with httpx.AsyncClient(trust_env=False) as http:
        return (await http.get(f"{host.url}/hello")).text == "hello"


async def test_it_serves_and_keeps_the_connection(host: Host) -> None:
    async with await host.connect() as stream:
        for _ in range(2):
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            await read_until(stream, b"hello")


@pytest.mark.parametrize("bind", ["nonsense", "127.0.0.1", ":80", "127.0.0.1:http", "127.0.0.1:70000", "192.0.2.1:80"])
async def test_what_cannot_be_bound_is_a_configuration_error(bind: str) -> None:
    with pytest.raises(ConfigError, match="bind"):
        await serve(Application().asgi, bind)


async def test_a_port_in_use_is_a_configuration_error(host: Host) -> None:
    with pytest.raises(ConfigError, match="EADDRINUSE"):
        await serve(Application().asgi, f"127.0.0.1:{host.port}")


async def test_ipv6_addresses_are_bracketed() -> None:
    try:
        (await trio.open_tcp_listeners(0, host="::1"))[0].socket.close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve, Application().asgi, "[::1]:0")
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"{url}/hello")).text == "hello"
        nursery.cancel_scope.cancel()
    assert url.startswith("http://[::1]:")


async def test_a_body_is_passed_on(host: Host) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.put(f"{host.url}/count", content=bytes(3_000_000))).text == "3000000"


class LongBody(httpx.AsyncByteStream):
    """A body that may be abandoned half-way without a warning, unlike httpx's own."""

    def __init__(self, size: int) -> None:
        self._left = size

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        step = min(self._left, 1 << 16)
        self._left -= step
        return bytes(step)


async def test_an_early_answer_reaches_a_peer_that_is_still_sending(host: Host) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        request = http.build_request("PUT", f"{host.url}/early", headers={"Content-Length": "9000000"})
        request.stream = LongBody(9_000_000)
        response = await http.send(request)
    assert (response.status_code, response.text, response.headers["connection"]) == (403, "no", "close")


@pytest.mark.parametrize("path", ["/early", "/hello", "/missing", "/fail"])
async def test_a_peer_that_never_stops_sending_is_cut_off(host: Host, path: str) -> None:
    async with await host.connect() as stream:
        await stream.send_all(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n".encode())
        with pytest.raises(trio.BrokenResourceError):
            await send_without_end(stream)
    assert await still_serves(host)


async def test_a_body_that_comes_too_slowly_ends_the_request(host: Host) -> None:
    answer = await host.ask("PUT /count HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert host.app.disconnects == 1


@pytest.mark.parametrize("head", ["", "GET /hel", "GET /hello HTTP/1.1\r\nHost: x\r\nX-Long: "])
async def test_headers_that_come_too_slowly_end_the_connection(host: Host, head: str) -> None:
    assert await host.ask(head) == b""


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("PUT /count HTTP/1.1\r\nHost: x\r\nContent-Length: 10000001\r\n\r\n", b"413"),
        ("GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde", b"400"),
        ("GET /hello HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", b"400"),
        ("GET /hello HTTP/1.1\r\nHost: x\r\nX: " + "y" * 70_000 + "\r\n\r\n", b"431"),
        ("\x00\x01 nonsense\r\n\r\n", b"400"),
        ("GET /hello HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"400"),
        (
            "GET /hello HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            b"403",
        ),
    ],
)
async def test_what_is_refused(host: Host, request_text: str, status: bytes) -> None:
    answer = await host.ask(request_text)
    assert answer.split(b" ")[1] == status
    assert await still_serves(host)


async def test_a_chunked_body_may_not_be_larger_either(host: Host) -> None:
    async with await host.connect() as stream:
        await stream.send_all(b"PUT /count HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(101):
            await stream.send_all(b"186a0\r\n" + bytes(100_000) + b"\r\n")
        assert (await read_all(stream)).startswith(b"HTTP/1.1 408 ")
    assert host.app.disconnects == 1


async def test_http2_is_refused(host: Host) -> None:
    async with httpx.AsyncClient(trust_env=False, http1=False, http2=True) as http:
        assert (await http.get(f"{host.url}/hello")).status_code == 505
    assert await still_serves(host)


async def test_a_peer_that_stops_reading_is_cut_off(host: Host) -> None:
    async with await host.connect() as stream:
        await stream.send_all(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
        await host.app.entered.wait()
        with trio.fail_after(5):
            await host.app.ended.wait()
    assert await still_serves(host)


async def test_a_mistake_of_the_application_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "nostrain.http"):
        async with hosted(QUICK) as host:
            async with httpx.AsyncClient(trust_env=False) as http:
                assert (await http.get(f"{host.url}/fail")).status_code == 500
            assert await still_serves(host)
    assert "GET /fail: the application failed" in caplog.text
    assert "a mistake of ours" in caplog.text


async def test_one_connection_too_many_is_closed(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    streams = [await host.connect() for _ in range(QUICK.max_connections)]
    for stream in streams:
        await stream.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    await host.app.entered.wait()
    with caplog.at_level(logging.WARNING, "nostrain.http"):
        async with await host.connect() as refused:
            assert await read_all(refused) == b""
    assert "one more is refused" in caplog.text
    host.app.release.set()
    for stream in streams:
        await read_until(stream, b"waited")
        await stream.aclose()


async def test_shutdown_lets_a_request_finish() -> None:
    async with hosted(ServerLimits(shutdown_grace=30)) as host:
        stream = await host.connect()
        await stream.send_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        await host.app.entered.wait()
        host.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        host.app.release.set()
        assert b"waited" in await read_all(stream)
        await stream.aclose()


@pytest.mark.parametrize("path", ["/wait", "/flood"])
async def test_shutdown_cuts_what_does_not_finish(path: str) -> None:
    limits = ServerLimits(shutdown_grace=0.1)
    async with hosted(limits) as host:
        stream = await host.connect()
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await host.app.entered.wait()
    assert host.app.ended.is_set() == (path == "/flood")
    await stream.aclose()
