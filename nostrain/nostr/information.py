"""Fetching a relay's information document (NIP-11): one bounded GET beside its WebSocket, over a transport that is handed in.

The transport decides where connections may lead (`http.outbound`): relays may be named by strangers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import httpx
import trio

from nostrain.errors import NostrainError, Unavailable
from nostrain.nostr.limits import MAX_DOCUMENT_BYTES

TIMEOUT_S: Final = 10.0
MEDIA_TYPE: Final = "application/nostr+json"

Inform = Callable[[str], Awaitable[bytes]]
"""The information document of the relay at a ws:// or wss:// URL, at most MAX_DOCUMENT_BYTES and one. Raises Unavailable: there is none, or not now."""


def http_information(client: httpx.AsyncClient) -> Inform:
    """An `Inform` over `client`, without redirects and credentials."""

    async def inform(url: str) -> bytes:
        scheme, rest = url.split("://", 1)
        with trio.move_on_after(TIMEOUT_S):
            try:
                return await _get(client, f"{'https' if scheme == 'wss' else 'http'}://{rest}")
            except (httpx.HTTPError, httpx.InvalidURL, UnicodeError, OSError, NostrainError) as error:  # UnicodeError: no name for DNS
                raise Unavailable(f"relay information of {url}: {error}") from error
        raise Unavailable(f"relay information of {url}: nothing within {TIMEOUT_S:g} s")

    return inform


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    # Nothing is decompressed: a few bytes could become very many.
    headers = {"Accept": MEDIA_TYPE, "Accept-Encoding": "identity"}
    async with client.stream("GET", url, headers=headers, follow_redirects=False) as answer:
        if answer.status_code != 200:
            raise Unavailable(f"status {answer.status_code}")
        data = b""
        with trio.CancelScope() as enough:  # the loop is left from within a read, so that httpx's nested generators unwind in order
            async for chunk in answer.aiter_raw():
                data += chunk
                if len(data) > MAX_DOCUMENT_BYTES:
                    enough.cancel()
        return data[: MAX_DOCUMENT_BYTES + 1]
