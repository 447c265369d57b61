"""One blob from one URL: streamed to disk, hashed on the way, capped while streaming, resumed where a transfer broke."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

import httpx
import trio

from nostrain.blobs.incoming import Incoming, StorageFull
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.urls import PaymentRequired, redirect_untrusted
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.units import Digest

MOST_RESUMPTIONS: Final = 8
"""Of one transfer from one source."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LONGEST_CHAIN: Final = 3
_ABSENT: Final = frozenset({404, 410})
_NOT_NOW: Final = frozenset({408, 425, 429})
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,15})-(\d{1,15})/(\d{1,15}|\*)")
_STRONG_TAG: Final = re.compile(r'"[!#-~]{1,200}"')


Show = Callable[[httpx.URL], Awaitable[dict[str, str]]]
"""The headers that show what was paid for a URL."""


class NotThere(Unavailable):
    """The server has no such blob now, which is no fault of its own."""


class Disagrees(Unavailable):
    """What the server has cannot be the rest of what was fetched so far: one of the two is something else."""


class _Body(NamedTuple):
    """A body that may be taken: how many bytes it may have, whether it begins with the blob's first, and the blob's size as told (0: not)."""

    most: int
    whole: bool
    total: int


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


class Download:
    """Brings the blob `digest` into `incoming`, which is not checked against it here. `show`: see there; without it nothing is shown."""

    def __init__(self, http: httpx.AsyncClient, digest: Digest, incoming: Incoming, tuning: Tuning, show: Show | None = None) -> None:
        self._http, self._digest, self.incoming, self._tuning, self._show = http, digest, incoming, tuning, show
        self._tags: dict[httpx.URL, str] = {}

    async def whole(self, url: httpx.URL) -> None:
        """The whole body at `url`; what `incoming` holds has to be from there. A broken transfer is resumed as long as each try brings something.

        Raises Unavailable when the source gave up or was too slow, PaymentRequired when it wants money, RemoteProtocolError when it serves
        too much or refuses, StorageFull. What `incoming` then holds is of no use for another source.
        """
        for _ in range(MOST_RESUMPTIONS):
            before = self.incoming.size
            try:
                await self.rest(url)
            except (StorageFull, Disagrees):
                await self.incoming.restart()
                raise
            except Unavailable:
                if self.incoming.size <= before:
                    raise
            else:
                return
        raise Unavailable(f"{url.host}: broke off {MOST_RESUMPTIONS} times")

    async def rest(self, url: httpx.URL, first: Callable[[], bool] = lambda: True) -> None:
        """One request for what `incoming` lacks. `first` is called when a byte has come, or the empty end, before `incoming` is touched;
        if it is False, nothing is taken.

        Raises as `whole`; Disagrees: `incoming` is as it was. On any other Unavailable it has what had come.
        """
        for _ in range(_LONGEST_CHAIN):
            location = await self._once(url, first)
            if location is None:
                return
            url = redirect_untrusted(url, location, self._digest)
        raise RemoteProtocolError("blob redirect", f"more than {_LONGEST_CHAIN} in a row")

    async def _once(self, url: httpx.URL, first: Callable[[], bool]) -> str | None:
        """One request. The target of a redirect, or None when the body is complete."""
        headers = {"Accept-Encoding": "identity", **({} if self._show is None else await self._show(url))}
        if self.incoming.size:
            headers["Range"] = f"bytes={self.incoming.size}-"
            headers.update({"If-Range": self._tags[url]} if url in self._tags else {})
        with trio.move_on_after(self._tuning.connect + self._tuning.silence) as scope:
            try:
                async with self._http.stream("GET", url, headers=headers) as response:
                    if response.status_code in _REDIRECTS:
                        return str(response.headers.get("location", ""))
                    body = _judge(response, self.incoming)
                    if _STRONG_TAG.fullmatch(response.headers.get("etag", "")):
                        self._tags[url] = response.headers["etag"]
                    scope.deadline = trio.current_time() + self._tuning.grace + body.most / self._tuning.min_rate
                    await _pour(response, body, self.incoming, first)
                    return None
            except httpx.HTTPError as error:
                raise Unavailable(f"{url.host}: {type(error).__name__}") from error
            except UnicodeError as error:
                raise RemoteProtocolError("blob URL", "the host name cannot be resolved") from error
        raise Unavailable(f"{url.host}: too slow")


async def measure(http: httpx.AsyncClient, url: httpx.URL, digest: Digest, tuning: Tuning) -> int:
    """The size of the blob at `url`, as its server says (HEAD). Raises as `Download.whole`."""
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
    if response.status_code != 200:
        raise Unavailable(f"{response.url.host}: HTTP {response.status_code}")
    length = _length(response)
    if length is None:
        raise RemoteProtocolError("blob", "its server does not tell its size", whose=response.url.host)
    return length


def _length(response: httpx.Response) -> int | None:
    text = response.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


def _judge(response: httpx.Response, incoming: Incoming) -> _Body:
    """What status and headers say about the body, before anything of it is taken."""
    host, status, offset = response.url.host, response.status_code, incoming.size
    if status in _ABSENT:
        raise NotThere(f"{host}: HTTP {status}")
    if status in _NOT_NOW or status >= 500:
        raise Unavailable(f"{host}: HTTP {status}")
    if status == 402:
        raise PaymentRequired(response.url, response)
    if status == 416:
        raise Disagrees(f"{host}: has less than was fetched")
    length, total = _length(response), 0
    if status == 206 and offset:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if match is None or int(match[1]) != offset:
            raise RemoteProtocolError("blob", "another range than was asked for", whose=host)
        total = 0 if match[3] == "*" else int(match[3])
        if total and incoming.expected and total != incoming.expected:
            raise Disagrees(f"{host}: has {total} bytes, {incoming.expected} were promised")
        begin = offset
    elif status == 200:
        begin, total = 0, length or 0
    else:
        raise RemoteProtocolError("blob", f"HTTP {status}", whose=host)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RemoteProtocolError("blob", "an encoding that was not asked for", whose=host)
    size = max(total, begin + (length or 0))
    if size > incoming.limit:
        raise RemoteProtocolError("blob", f"{size} bytes, at most {incoming.limit} are wanted", whose=host)
    return _Body(incoming.limit - begin if length is None else length, whole=begin == 0, total=total or (size if length is not None else 0))


async def _pour(response: httpx.Response, body: _Body, incoming: Incoming, first: Callable[[], bool]) -> None:
    """Write the body. The loop is only ever left from within a read, so that httpx's nested generators unwind in order:
    writes are shielded (they are short), and a fault cancels the next read.
    """
    fault: RemoteProtocolError | Unavailable | None = None
    begun = False
    with trio.CancelScope() as scope:
        async for chunk in response.aiter_raw():
            if scope.cancel_called:
                continue
            if not begun and not first():
                scope.cancel()
                continue
            try:
                with trio.CancelScope(shield=True):
                    if not begun:
                        await _begin(body, incoming)
                    begun = True
                    await incoming.write(chunk)
            except (RemoteProtocolError, Unavailable) as error:
                fault = error
                scope.cancel()
    if fault is not None:
        raise fault
    if not begun and not scope.cancel_called and first():
        await _begin(body, incoming)
    elif begun and incoming.size < incoming.expected:
        raise Unavailable(f"{response.url.host}: sent a part of what it has")


async def _begin(body: _Body, incoming: Incoming) -> None:
    if body.whole and incoming.size:
        await incoming.restart()
    if body.total:
        incoming.expect(body.total)
