"""A stored blob as an HTTP response: whole, one range of it, or nothing new (RFC 9110, sections 13 to 15).

The file is opened before the first header goes out, so that a blob which is removed meanwhile is served to its end, and one that was removed a
moment earlier is a 404. What there is under a digest never changes: the digest is the strong validator, and a date would tell nothing.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

import trio
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from nostrain.blobs.gate import refusal
from nostrain.blobs.incoming import STEP
from nostrain.units import Digest

_RANGE: Final = re.compile(r"\s*(\d{0,18})\d*\s*-\s*(\d{0,18})(\d*)\s*")


class Stretch(NamedTuple):
    """The bytes of a blob from `begin` up to `end`."""

    begin: int
    end: int


def asked_range(headers: Headers, etag: str, size: int) -> Stretch | None:
    """The one range of a GET that is to be served of `size` bytes; None: the whole blob.

    Other units, several ranges and ranges of another version (`If-Range`) mean the whole. Raises HTTPException: 400 for what is no range, 416 for
    one that holds no byte of the blob.
    """
    text, condition = headers.get("range"), headers.get("if-range")
    if text is None or condition not in (None, etag):
        return None
    unit, separator, ranges = text.partition("=")
    if separator and (unit.strip().lower() != "bytes" or "," in ranges):
        return None
    match = _RANGE.fullmatch(ranges)
    if not separator or match is None or not (match[1] or match[2]):
        raise refusal(400, "Range: not of the form bytes=FIRST-LAST")
    first, last = match[1], match[2] if not match[3] else str(size)
    begin, end = (int(first), min(int(last) + 1, size) if last else size) if first else (max(size - int(last), 0), size)
    if begin >= end:
        raise refusal(416, f"Range: no such bytes, the blob has {size}", (("Content-Range", f"bytes */{size}"),))
    return Stretch(begin, end)


def unchanged(headers: Headers, etag: str) -> bool:
    """Whether the client says that it has the blob already."""
    named = [name.strip().removeprefix("W/") for name in headers.get("if-none-match", "").split(",")]
    return etag in named or named == ["*"]


class OpenBlob:
    """A blob's open file."""

    def __init__(self, path: Path, digest: Digest) -> None:
        """Blocking. Raises FileNotFoundError."""
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size
        self.etag = f'"{digest}"'

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from `begin`, at most STEP of them. Blocking."""
        return os.pread(self._fd, min(STEP, end - begin), begin)


class BlobResponse:
    """An ASGI application that serves `blob`, and closes it. It ends when the peer hangs up."""

    def __init__(self, blob: OpenBlob, headers: dict[str, str], stretch: Stretch | None) -> None:
        self._blob, self._stretch = blob, stretch
        begin, end = stretch or Stretch(0, blob.size)
        told = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - begin),
            "Accept-Ranges": "bytes",
            "ETag": blob.etag,
            "X-Content-Type-Options": "nosniff",
            **headers,
        }
        if stretch is not None:
            told["Content-Range"] = f"bytes {begin}-{end - 1}/{blob.size}"
        self._headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in told.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application; read in steps that are worth a thread each."""
        try:
            await send({"type": "http.response.start", "status": 200 if self._stretch is None else 206, "headers": self._headers})
            begin, end = self._stretch or Stretch(0, self._blob.size)
            if scope["method"] == "HEAD" or begin == end:
                await send({"type": "http.response.body"})
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_gone, receive, nursery.cancel_scope)
                await self._body(begin, end, send)
                nursery.cancel_scope.cancel()
        finally:
            self._blob.close()

    async def _body(self, begin: int, end: int, send: Send) -> None:
        while begin < end:
            data = await trio.to_thread.run_sync(self._blob.read, begin, end)
            begin = begin + len(data) if data else end  # a file that somebody cut short: the client sees fewer bytes than it was told
            await send({"type": "http.response.body", "body": data, "more_body": begin < end})


async def _until_gone(receive: Receive, transfer: trio.CancelScope) -> None:
    """End the transfer when the peer has hung up."""
    while (await receive())["type"] != "http.disconnect":
        pass
    transfer.cancel()
