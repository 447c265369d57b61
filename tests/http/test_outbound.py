"""URLs of strangers never lead into private networks: by address, by name, by a name that changes its mind, or by a redirect."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpcore
import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from trio.testing import wait_all_tasks_blocked

from nostrain.errors import RemoteProtocolError
from nostrain.http.outbound import LOOKUPS, PublicBackend, PublicTransport, is_public, outbound, public_stream
from nostrain.http.server import serve

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "2002:101:101::1", "64:ff9b::101:101"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "255.255.255.255"),
        *(
            "224.0.0.1",
            "240.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "::",
            "::1",
            "fe80::1",
            "fe80::1%eth0",
            "fc00::1",
            "fd12:3456::1",
            "ff02::1",
        ),
        *(
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
        ),
    ],
)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_wrapping_an_address_changes_nothing(address: Any) -> None:
    number = int(address)
    assert is_public(f"::ffff:{address}") == is_public(str(address))
    assert is_public(f"64:ff9b::{number >> 16:x}:{number & 0xFFFF:x}") == is_public(str(address))
    assert is_public(f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1") == is_public(str(address))


class Resolver(trio.abc.HostnameResolver):
    """Answers each question with the next of `answers`."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    async def getaddrinfo(self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        return [(trio.socket.AF_INET, trio.socket.SOCK_STREAM, 6, "", (address, int(port))) for address in self._answers.pop(0)]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise AssertionError("nobody asks for names")


class Connections(httpcore.AsyncNetworkBackend):
    """Notes where connections are made, and fails them."""

    def __init__(self) -> None:
        self.made: list[str] = []

    async def connect_tcp(self, host: str, port: int, *rest: object) -> httpcore.AsyncNetworkStream:
        self.made.append(host)
        raise httpcore.ConnectError("nobody there")


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    found = Connections()
    monkeypatch.setattr(httpcore, "TrioBackend", lambda: found)
    return found


async def get(url: str, *answers: list[str]) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(*answers))
    async with httpx.AsyncClient(transport=PublicTransport(connections=1), trust_env=False) as http:
        await http.get(url)


async def test_the_judged_address_is_the_one_connected_to(connections: Connections) -> None:
    """DNS rebinding: the name would resolve to loopback the second time, and is not asked a second time."""
    with pytest.raises(httpx.ConnectError):
        await get("http://rebind.test/x", [PUBLIC], ["127.0.0.1"])
    assert connections.made == [PUBLIC]


async def test_private_addresses_among_public_ones_are_left_out(connections: Connections) -> None:
    with pytest.raises(httpx.ConnectError):
        await get("https://mixed.test/x", ["127.0.0.1", PUBLIC, "10.0.0.1", PUBLIC, "1.1.1.1"])
    assert connections.made == [PUBLIC, "1.1.1.1"]


@pytest.mark.parametrize("url", ["http://inside.test/", "https://inside.test/", "http://inside.test:22/"])
async def test_a_name_of_private_addresses_only_is_refused(connections: Connections, url: str) -> None:
    with pytest.raises(RemoteProtocolError, match="private network"):
        await get(url, ["127.0.0.1", "10.0.0.1"])
    assert connections.made == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
async def test_spellings_of_loopback_are_refused(connections: Connections, host: str) -> None:
    async with httpx.AsyncClient(transport=outbound(False, 1), trust_env=False) as http:
        with pytest.raises((RemoteProtocolError, httpx.ConnectError)):
            await http.get(f"http://{host}:1/")
    assert connections.made == []


async def test_a_name_that_does_not_exist_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nowhere(*_: object, **__: object) -> None:
        raise trio.socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", nowhere)
    async with httpx.AsyncClient(transport=outbound(False, 1), trust_env=False) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("http://nowhere.test/")


async def test_names_that_nobody_answers_for_leave_threads_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, limiter = threading.Event(), trio.to_thread.current_default_thread_limiter()

    def never(host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        if not flags & socket.AI_NUMERICHOST:
            answered.wait()
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    try:
        for wave in range(3):
            async with trio.open_nursery() as nursery:
                for number in range(LOOKUPS):
                    nursery.start_soon(public_stream, f"host{wave}-{number}.example", 80)
                await wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert limiter.borrowed_tokens <= LOOKUPS < limiter.total_tokens
    finally:
        answered.set()
    with pytest.raises(OSError, match="no such name"):
        await public_stream("another.example", 80)


async def test_a_slow_resolver_is_a_connect_timeout(autojump_clock: object, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*_: object, **__: object) -> None:
        await trio.sleep(100)

    monkeypatch.setattr(trio.socket, "getaddrinfo", slow)
    with pytest.raises(httpcore.ConnectTimeout):
        await PublicBackend().connect_tcp("slow.test", 80, timeout=5)


async def test_unix_sockets_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        await PublicBackend().connect_unix_socket("/run/some.sock")


@pytest.fixture
async def inside() -> AsyncIterator[str]:
    """A server on loopback that redirects to itself under another name of loopback."""

    async def answer(request: Request) -> Response:
        if request.url.path == "/away":
            return RedirectResponse(str(request.url.replace(hostname="localhost", path="/here")))
        return PlainTextResponse("inside")

    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve, Starlette(routes=[Route("/{rest}", answer)]), "127.0.0.1:0")
        yield url
        nursery.cancel_scope.cancel()


async def status(transport: httpx.AsyncBaseTransport, url: str) -> int:
    async with httpx.AsyncClient(transport=transport, trust_env=False) as http:
        return (await http.get(url, follow_redirects=True)).status_code


async def test_a_real_server_on_loopback_is_reached_only_when_allowed(inside: str) -> None:
    with pytest.raises(RemoteProtocolError, match="private network"):
        await status(outbound(False, 1), inside + "/here")
    assert await status(outbound(True, 1), inside + "/here") == 200
    assert await status(outbound(False, 1, [inside]), inside + "/here") == 200, "the operator's own configuration names it"


async def test_a_redirect_into_the_private_network_is_refused(inside: str) -> None:
    with pytest.raises(RemoteProtocolError, match="private network"):
        await status(outbound(False, 1, [inside]), inside + "/away")


async def test_tls_checks_the_name_and_not_the_address(connections: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    class Stream(httpcore.AsyncNetworkStream):
        async def start_tls(self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None) -> Any:
            asked.append(server_hostname)
            raise httpcore.ConnectError("enough seen")

        async def aclose(self) -> None:
            pass

    async def connect(host: str, port: int, timeout: Any, address: Any, options: Iterable[Any] | None) -> Stream:
        return Stream()

    monkeypatch.setattr(connections, "connect_tcp", connect)
    with pytest.raises(httpx.ConnectError):
        await get("https://name.test/", [PUBLIC])
    assert asked == ["name.test"]


async def test_other_streams_are_judged_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"mixed.example": ["10.0.0.1", "93.184.216.34", "93.184.216.35"], "inside.example": ["127.0.0.1", "::1"]}
    dialled: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        if host not in addresses:
            raise socket.gaierror("no such name")
        return [(0, 0, 0, "", (address, port)) for address in addresses[host]]

    async def open_tcp_stream(address: str, port: int) -> str:
        dialled.append(address)
        if address == "93.184.216.34":
            raise OSError("refused")
        return address

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(trio, "open_tcp_stream", open_tcp_stream)
    assert str(await public_stream("mixed.example", 443)) == "93.184.216.35"
    assert dialled == ["93.184.216.34", "93.184.216.35"]
    with pytest.raises(RemoteProtocolError, match="private network"):
        await public_stream("inside.example", 443)
    with pytest.raises(OSError, match="no such name"):
        await public_stream("nowhere.example", 443)
    assert len(dialled) == 2
