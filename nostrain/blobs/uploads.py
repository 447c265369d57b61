"""`PUT /upload` (BUD-02) and `HEAD /upload` (BUD-06): everything that can be refused is refused before a byte is stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from nostrain.blobs.auth import digests
from nostrain.blobs.gate import Gate, refusal
from nostrain.blobs.housekeeping import Housekeeping
from nostrain.blobs.index import Upload
from nostrain.blobs.policy import BlobLimits, UploadPolicy
from nostrain.blobs.store import BlobStore, DigestMismatch
from nostrain.errors import RemoteProtocolError
from nostrain.ports.tolls import Passage, Use
from nostrain.units import Digest, Pubkey, is_hex32

_LONGEST_LENGTH: Final = 15  # decimal digits of a size that anyone means


class Uploads:
    """The endpoint. Keeps count of what is on its way, so that parallel uploads cannot outrun a quota."""

    def __init__(self, store: BlobStore, gate: Gate, policy: UploadPolicy, limits: BlobLimits, housekeeping: Housekeeping) -> None:
        self._store, self._gate, self._policy, self._limits, self._housekeeping = store, gate, policy, limits, housekeeping
        self._in_flight: Counter[Pubkey] = Counter()

    async def head(self, request: Request) -> Response:
        """Say whether an upload with these headers would be taken now."""
        if "x-sha-256" not in request.headers:
            raise refusal(400, "X-SHA-256: missing")
        _, _, _, passage = await self._admit(request, "X-Content-Length", preview=True)
        await passage.finish(None)
        return Response()

    async def put(self, request: Request) -> Response:
        """Store the body. 201 when it is new here, 200 when it was here already."""
        owner, digest, size, passage = await self._admit(request, "Content-Length")
        moved = None
        try:
            response = await self._take(request, owner, digest, size)
            moved = size
        finally:
            with trio.CancelScope(shield=True):
                await passage.finish(moved)
        return response

    async def _take(self, request: Request, owner: Pubkey, digest: Digest, size: int) -> Response:
        known = await self._store.claim(digest, owner)
        if known is not None:
            return JSONResponse(self._gate.descriptor(request, known))
        async with self.on_its_way(owner, size):
            created = await self._receive(request, owner, digest, size)
        upload = Upload(owner, digest, size, self._gate.now())
        return JSONResponse(self._gate.descriptor(request, upload), 201 if created else 200)

    async def _receive(self, request: Request, owner: Pubkey, digest: Digest, size: int) -> bool:
        try:
            async with aclosing(request.stream()) as chunks:
                return await self._store.put_stream(chunks, digest, size, owner)
        except DigestMismatch as error:
            raise refusal(409, str(error)) from error
        except RemoteProtocolError as error:
            raise refusal(400, str(error)) from error
        except ClientDisconnect as error:
            raise refusal(408, "the body did not arrive in time") from error

    async def _admit(self, request: Request, length_header: str, *, preview: bool = False) -> tuple[Pubkey, Digest, int, Passage]:
        """Who uploads what and how much, once everything that can be known before the body allows it."""
        size = _length(request, length_header)
        owner, digest = self._identify(request)
        return owner, digest, size, await self.admit(request, owner, digest, size, preview=preview)

    @asynccontextmanager
    async def on_its_way(self, owner: Pubkey, size: int) -> AsyncIterator[None]:
        """Room for the bytes, which count against the quota while it lasts. Raises StorageFull."""
        coming = self._in_flight.total()
        self._in_flight[owner] += size
        try:
            await self._housekeeping.make_room(size, coming)
            yield
        finally:
            self._in_flight[owner] -= size

    async def admit(
        self, request: Request, owner: Pubkey, digest: Digest, size: int, *, path: str = "/upload", preview: bool = False
    ) -> Passage:
        """The way in for a blob of `owner`, if size, policy, quota and disk allow it; payment comes last. Raises HTTPException, StorageFull."""
        if size > self._limits.max_blob:
            raise refusal(413, f"{size} bytes, at most {self._limits.max_blob} are taken")
        reason = self._policy.allow(owner, digest, size)
        if reason is not None:
            raise refusal(403, reason)
        used = await self._store.usage(owner) + self._in_flight[owner]
        if used + size > self._limits.quota:
            raise refusal(429, f"{size} bytes more than the {used} stored would exceed the quota of {self._limits.quota}")
        if self._store.path(digest) is None:
            await self._housekeeping.check_room(size, self._in_flight.total())
        return await self._gate.admit(request, Use("upload", "PUT", path, size, digest, owner, preview))

    def _identify(self, request: Request) -> tuple[Pubkey, Digest]:
        """The uploader, and the blob: as `X-SHA-256` says, or as the token says if it names just one."""
        named = request.headers.get("x-sha-256")
        if named is not None:
            if not is_hex32(named):
                raise refusal(400, "X-SHA-256: not a SHA-256 in lowercase hex")
            return self._gate.authorize(request, "upload", Digest(named)).pubkey, Digest(named)
        event = self._gate.authorize(request, "upload")
        meant = digests(event)
        if len(meant) != 1 or not all(map(is_hex32, meant)):
            raise refusal(400, "X-SHA-256: required with a token that does not name exactly one blob")
        return event.pubkey, Digest(*meant)


def _length(request: Request, header: str) -> int:
    text = request.headers.get(header)
    if text is None:
        raise refusal(411, f"{header}: missing")
    if not (text.isascii() and text.isdecimal() and len(text) <= _LONGEST_LENGTH):
        raise refusal(400, f"{header}: not a number of bytes")
    return int(text)
