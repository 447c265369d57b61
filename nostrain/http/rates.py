"""An ASGI layer that counts requests: token buckets for each address and each shown credential, in bounded memory.

The address is the peer's; behind a reverse proxy that the operator runs, the last entry of `X-Forwarded-For`, which that proxy wrote. IPv6 peers
are counted by their /64: one host has all of it.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Final

import msgspec
import trio
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

BUCKETS: Final = 8192
"""Addresses and credentials that are remembered, each; whoever was silent longest is forgotten first."""

_CREDENTIALS: Final = (b"authorization", b"x-lightning")


class Rates(msgspec.Struct, frozen=True):
    """Requests a minute, which may also come all at once. `proxy`: whether a reverse proxy of ours stands before us."""

    address: int = 3000
    token: int = 600
    proxy: bool = False


class RateLimit:
    """Wraps `app`: 429 with `Retry-After` for whoever asks too often."""

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self._app, self._proxy = app, rates.proxy
        self._addresses, self._tokens = _Buckets(rates.address), _Buckets(rates.token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        wait = self._wait(scope) if scope["type"] == "http" else 0.0
        if not wait:
            await self._app(scope, receive, send)
            return
        reason = "too many requests"
        headers = {
            "Retry-After": str(ceil(wait)),
            "X-Reason": reason,
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Expose-Headers": "*",
        }
        await JSONResponse({"message": reason}, 429, headers=headers)(scope, receive, send)

    def _wait(self, scope: Scope) -> float:
        """Seconds until the request may be made; 0: now, and it is counted."""
        wait = self._addresses.take(_address(scope, self._proxy))
        for name, value in scope["headers"] if not wait else ():
            if name in _CREDENTIALS and not wait:
                wait = self._tokens.take(sha256(value).hexdigest())
        return wait


class _Buckets:
    """Token buckets that hold a minute's requests."""

    def __init__(self, per_minute: int) -> None:
        self._size, self._rate = float(per_minute), per_minute / 60
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> float:
        """Take one; 0, or the seconds until there is one."""
        now = trio.current_time()
        left, since = self._left.pop(key, (self._size, now))
        left = min(self._size, left + (now - since) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[key] = (left - 1 if not wait else left, now)
        if len(self._left) > BUCKETS:
            self._left.popitem(last=False)
        return wait


def _address(scope: Scope, proxy: bool) -> str:
    """Whom to count."""
    client = scope.get("client")
    text = str(client[0]) if client else ""
    if proxy:
        forwarded = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        text = forwarded[-1].decode("latin-1").rpartition(",")[2].strip() if forwarded else text
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
    return str(address)
