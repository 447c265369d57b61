"""One blob from one URL: streamed to disk, hashed on the way, capped while streaming, resumed where a transfer broke."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final

import httpx
import trio

from nostrain.blobs.incoming import Incoming, StorageFull
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.urls import PaymentRequired, redirect_untrusted
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.units import Digest

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LONGEST_CHAIN: Final = 3
_MOST_RESUMPTIONS: Final = 8
_NOT_NOW: Final = frozenset({404, 408, 410, 425, 429})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")


Show = Callable[[httpx.URL], Awaitable[dict[str, str]]]
"""The headers that show what was paid for a URL."""


def connections(transport: httpx.AsyncBaseTransport | None, tuning: Tuning) -> httpx.AsyncClient:
    """A client for what strangers name: it keeps no cookies, follows nothing by itself, and asks no proxy. `transport` decides where
    connections may lead; it is closed with the client.
    """
    return httpx.AsyncClient(
        timeout=httpx.Timeout(tuning.silence, connect=tuning.connect),
        limits=httpx.Limits(max_connections=tuning.connections),
        transport=transport,
        follow_redirects=False,
        trust_env=False,
    )


async def download(
    http: httpx.AsyncClient, url: httpx.URL, digest: Digest, incoming: Incoming, tuning: Tuning, show: Show | None = None
) -> None:
    """Bring the whole body at `url` into `incoming`, which is not checked against `digest` here.

    A broken transfer is resumed as long as each try brings something. Raises Unavailable when the source gave up or was too slow,
    PaymentRequired when it wants money, RemoteProtocolError when it serves too much or refuses, StorageFull. What `incoming` then holds is of no use for another source.
    """
    for _ in range(_LONGEST_CHAIN):
        location = await _resume_until_done(http, url, incoming, tuning, show)
        if location is None:
            return
        url = redirect_untrusted(url, location, digest)
    raise RemoteProtocolError("blob redirect", f"more than {_LONGEST_CHAIN} in a row")


async def measure(http: httpx.AsyncClient, url: httpx.URL, digest: Digest, tuning: Tuning) -> int:
    """The size of the blob at `url`, as its server says (HEAD). Raises as `download`."""
    with trio.move_on_after(tuning.connect + tuning.silence):
        for _ in range(_LONGEST_CHAIN):
            try:
                response = await http.head(url, headers={"Accept-Encoding": "identity"})
            except httpx.HTTPError as error:
                raise Unavailable(f"{url.host}: {type(error).__name__}") from error
            except UnicodeError as error:
                raise RemoteProtocolError("blob URL", "the host name cannot be resolved") from error
            if response.status_code not in _REDIRECTS:
                return _told(response)
            url = redirect_untrusted(url, response.headers.get("location", ""), digest)
        raise RemoteProtocolError("blob redirect", f"more than {_LONGEST_CHAIN} in a row")
    raise Unavailable(f"{url.host}: too slow")


def _told(response: httpx.Response) -> int:
    host, length = response.url.host, response.headers.get("content-length", "")
    if response.status_code != 200:
        raise Unavailable(f"{host}: HTTP {response.status_code}")
    if not (length.isascii() and length.isdecimal() and len(length) <= 15):
        raise RemoteProtocolError("blob", "its server does not tell its size", whose=host)
    return int(length)


async def _resume_until_done(http: httpx.AsyncClient, url: httpx.URL, incoming: Incoming, tuning: Tuning, show: Show | None) -> str | None:
    for _ in range(_MOST_RESUMPTIONS):
        before = incoming.size
        try:
            return await _once(http, url, incoming, tuning, {} if show is None else await show(url))
        except StorageFull:
            raise
        except Unavailable:
            if incoming.size <= before:
                raise
    raise Unavailable(f"{url.host}: broke off {_MOST_RESUMPTIONS} times")


async def _once(http: httpx.AsyncClient, url: httpx.URL, incoming: Incoming, tuning: Tuning, shown: dict[str, str]) -> str | None:
    """One request. The target of a redirect, or None when the body is complete."""
    headers = {"Accept-Encoding": "identity", **shown}
    if incoming.size:
        headers["Range"] = f"bytes={incoming.size}-"
    with trio.move_on_after(tuning.connect + tuning.silence) as scope:
        try:
            async with http.stream("GET", url, headers=headers) as response:
                if response.status_code in _REDIRECTS:
                    return str(response.headers.get("location", ""))
                remaining = await _accept(response, incoming)
                scope.deadline = trio.current_time() + tuning.grace + remaining / tuning.min_rate
                await _pour(response, incoming)
                return None
        except httpx.HTTPError as error:
            raise Unavailable(f"{url.host}: {type(error).__name__}") from error
        except UnicodeError as error:
            raise RemoteProtocolError("blob URL", "the host name cannot be resolved") from error
    raise Unavailable(f"{url.host}: too slow")


async def _accept(response: httpx.Response, incoming: Incoming) -> int:
    """Judge status and headers, and make `incoming` ready for the body; how many bytes may come."""
    host, status = response.url.host, response.status_code
    if status in _NOT_NOW or status >= 500:
        raise Unavailable(f"{host}: HTTP {status}")
    if status == 402:
        raise PaymentRequired(response.url, response)
    if status == 416:
        await incoming.restart()
        raise Unavailable(f"{host}: has less than it had")
    if status == 206 and incoming.size:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != incoming.size:
            raise RemoteProtocolError("blob", "another range than was asked for", whose=host)
    elif status == 200:
        if incoming.size:
            await incoming.restart()
    else:
        raise RemoteProtocolError("blob", f"HTTP {status}", whose=host)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RemoteProtocolError("blob", "an encoding that was not asked for", whose=host)
    allowed = incoming.limit - incoming.size
    length = response.headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal() and len(length) <= 15):
        return allowed
    if int(length) > allowed:
        raise RemoteProtocolError("blob", f"{int(length) + incoming.size} bytes, at most {incoming.limit} are wanted", whose=host)
    incoming.expect(incoming.size + int(length))
    return int(length)


async def _pour(response: httpx.Response, incoming: Incoming) -> None:
    """Write the body. The loop is only ever left from within a read, so that httpx's nested generators unwind in order:
    writes are shielded (they are short), and a fault cancels the next read.
    """
    fault: RemoteProtocolError | Unavailable | None = None
    with trio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            if fault is None:
                try:
                    with trio.CancelScope(shield=True):
                        await incoming.write(chunk)
                except (RemoteProtocolError, Unavailable) as error:
                    fault = error
                    scope.cancel()
    if fault is not None:
        raise fault
