"""HTTP to addresses that strangers name: never into private networks, unless the operator said so (SSRF).

A name is resolved here, its addresses are judged, and the connection goes to an address that was judged: a name that resolves to something
else a moment later (DNS rebinding) gains nothing, and a redirect is a new connection that passes here as well. TLS still checks the name.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Final

import httpcore
import httpx
import trio

from nostrain.errors import RemoteProtocolError

_NAT64: Final = IPv6Network("64:ff9b::/96")
_TUNNELS: Final = (IPv6Network("2001::/32"), IPv6Network("64:ff9b:1::/48"))
"""Teredo, and translation prefixes of local use: what they lead to cannot be told from the address."""

PRIVATE: Final = "leads into a private network, which private_addresses = false forbids"

LOOKUPS: Final = 16
"""Names that are looked up at a time. Whoever names many hosts, of name servers that never answer, must not use up the threads that the journal needs."""

_lookups: Final = trio.lowlevel.RunVar[trio.CapacityLimiter]("lookups")

Option = Any
"""httpcore's type of a socket option, which it does not export."""


def is_public(text: str) -> bool:
    """Whether an IP address is of the public internet, also when it wraps an IPv4 address (mapped, 6to4, NAT64). Raises ValueError."""
    address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        if any(address in network for network in _TUNNELS):
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast and not address.is_reserved and not address.is_unspecified


class PublicBackend(httpcore.AsyncNetworkBackend):
    """httpcore's trio backend, for public addresses and for `trusted` (host, port), which the operator's own configuration names."""

    def __init__(self, trusted: Iterable[tuple[str, int]] = ()) -> None:
        self._inner = httpcore.TrioBackend()
        self._trusted = frozenset(trusted)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Option] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """As httpcore has it: the first of the name's public addresses that answers. Raises RemoteProtocolError when it has none."""
        if (host, port) in self._trusted:
            return await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        with trio.move_on_after(float("inf") if timeout is None else timeout):
            addresses = await _resolve(host, port)
            public = [address for address in addresses if is_public(address)]
            if not public:
                raise RemoteProtocolError("URL", PRIVATE, whose=host)
            failure: Exception | None = None
            for address in public:
                try:
                    return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
                except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                    failure = error
            assert failure is not None
            raise failure
        raise httpcore.ConnectTimeout(f"no connection within {timeout} s")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Option] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Never: no URL means one."""
        raise RemoteProtocolError("URL", "leads to a Unix socket")

    async def sleep(self, seconds: float) -> None:
        """As httpcore has it."""
        await trio.sleep(seconds)


class PublicTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over `PublicBackend`."""

    def __init__(self, *, connections: int, trusted: Iterable[tuple[str, int]] = ()) -> None:
        limits = httpx.Limits(max_connections=connections)
        super().__init__(trust_env=False, limits=limits)
        # httpx has no public way to choose the backend; the pool that it made has no connections yet. tests/http/test_outbound.py notices
        # when this stops to hold.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=connections,
            network_backend=PublicBackend(trusted),
        )


async def public_stream(host: str, port: int) -> trio.SocketStream:
    """A TCP connection to the first public address of `host` that answers, for what is not HTTP. Raises OSError; RemoteProtocolError: it has none."""
    try:
        addresses = [address for address in await _resolve(host, port) if is_public(address)]
    except httpcore.ConnectError as error:
        raise OSError(str(error)) from error
    if not addresses:
        raise RemoteProtocolError("URL", PRIVATE, whose=host)
    for address in addresses[:-1]:
        try:
            return await trio.open_tcp_stream(address, port)
        except OSError:
            continue
    return await trio.open_tcp_stream(addresses[-1], port)


def outbound(allow_private: bool, connections: int, trusted: Iterable[str] = ()) -> httpx.AsyncHTTPTransport:
    """The transport for URLs of strangers. `trusted`: base URLs of the operator's own configuration, which may be private."""
    if allow_private:
        return httpx.AsyncHTTPTransport(trust_env=False, limits=httpx.Limits(max_connections=connections))
    return PublicTransport(connections=connections, trusted=[_endpoint(httpx.URL(url)) for url in trusted])


def _endpoint(url: httpx.URL) -> tuple[str, int]:
    return url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)


async def _resolve(host: str, port: int) -> list[str]:
    try:
        found = await _look_up(host, port)
    except socket.gaierror as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _look_up(host: str, port: int) -> list[Any]:
    """`getaddrinfo`, LOOKUPS at a time. One that is given up keeps its place until its thread is back: nothing can stop that thread."""
    limiter, place, done = _limiter(), object(), trio.Event()
    found: list[list[Any]] = []
    failed: list[Exception] = []

    async def ask() -> None:
        try:
            found.append(list(await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
        except Exception as error:
            failed.append(error)
        finally:
            limiter.release_on_behalf_of(place)
            done.set()

    await limiter.acquire_on_behalf_of(place)
    trio.lowlevel.spawn_system_task(ask)  # which is not cancelled with us
    await done.wait()
    for error in failed:
        raise error
    return found[0]


def _limiter() -> trio.CapacityLimiter:
    try:
        return _lookups.get()
    except LookupError:
        limiter = trio.CapacityLimiter(LOOKUPS)
        _lookups.set(limiter)
        return limiter
