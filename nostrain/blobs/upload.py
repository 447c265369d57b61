"""One blob to one Blossom server (BUD-02), unless it is there already (BUD-01)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import httpx
import trio

from nostrain.blobs.incoming import STEP
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.urls import PaymentRequired, printable
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.units import Digest

_FOR_GOOD: Final = frozenset({400, 401, 403, 405, 409, 411, 413, 415})


class _FileBody(httpx.AsyncByteStream):
    """The file in 1 MiB steps, read in a thread. An iterator and no generator: trio warns of one that is abandoned half-way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        step = await trio.to_thread.run_sync(self._file.read, STEP)
        if not step:
            raise StopAsyncIteration
        return step


async def upload(
    http: httpx.AsyncClient, server: httpx.URL, path: Path, digest: Digest, headers: Mapping[str, str], tuning: Tuning
) -> None:
    """Return once `server` has the blob at `path`. Idempotent. `headers` say who we are, and what was paid.

    Raises Unavailable when it cannot take it now, PaymentRequired when it wants money, RemoteProtocolError, with its reason, when it refuses for good.
    """
    size = (await trio.Path(path).stat()).st_size
    with trio.move_on_after(tuning.connect + tuning.silence + tuning.grace + size / tuning.min_rate):
        try:
            if not await _has(http, server, digest, size):
                await _send(http, server, path, {**headers, "Content-Length": str(size), "X-SHA-256": digest})
            return
        except httpx.HTTPError as error:
            raise Unavailable(f"{server.host}: {type(error).__name__}") from error
    raise Unavailable(f"{server.host}: too slow")


async def _has(http: httpx.AsyncClient, server: httpx.URL, digest: Digest, size: int) -> bool:
    response = await http.head(f"{server}/{digest}", headers={"Accept-Encoding": "identity"})
    return response.status_code == 200 and response.headers.get("content-length") == str(size)


async def _send(http: httpx.AsyncClient, server: httpx.URL, path: Path, headers: dict[str, str]) -> None:
    headers["Content-Type"] = "application/octet-stream"
    with path.open("rb") as file:
        request = http.build_request("PUT", f"{server}/upload", headers=headers)
        request.stream = _FileBody(file)
        response = await http.send(request, stream=True)
        await response.aclose()
    if response.status_code in (200, 201):
        return
    if response.status_code == 402:
        raise PaymentRequired(request.url, response)
    reason = printable(response.headers.get("x-reason", ""))
    if response.status_code in _FOR_GOOD:
        raise RemoteProtocolError("upload", f"refused with HTTP {response.status_code} {reason}".rstrip(), whose=server.host)
    raise Unavailable(f"{server.host}: HTTP {response.status_code} {reason}".rstrip())
