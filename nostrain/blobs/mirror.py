"""`PUT /mirror` (BUD-04): fetch a blob from another server for whoever might upload it here. The URL is a stranger's: who asks is checked before
anything is asked of it, the client's transport decides where a connection may lead, and what comes is an upload like any other.
"""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Final

import httpx
import msgspec
import trio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from nostrain.blobs.auth import digests
from nostrain.blobs.download import Download, measure
from nostrain.blobs.gate import Gate, refusal
from nostrain.blobs.incoming import StorageFull
from nostrain.blobs.index import Upload
from nostrain.blobs.policy import UploadPolicy
from nostrain.blobs.store import BlobStore, DigestMismatch
from nostrain.blobs.tuning import Tuning
from nostrain.blobs.uploads import Uploads
from nostrain.blobs.urls import parse_url_untrusted
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.units import Digest, Pubkey, is_hex32

_PATH: Final = "/mirror"
_LARGEST_BODY: Final = 8192
_LONGEST_S: Final = 240.0
"""Below the silence after which the host cuts a connection (`http.limits`), so that whoever asked hears why nothing came."""
_NAME: Final = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_decoder: Final = msgspec.json.Decoder(dict[str, object])


class Mirrors:
    """The endpoint. `http` makes the requests; it has to refuse addresses that strangers may not reach through us."""

    def __init__(self, store: BlobStore, gate: Gate, policy: UploadPolicy, uploads: Uploads, http: httpx.AsyncClient) -> None:
        self._store, self._gate, self._policy, self._uploads, self._http = store, gate, policy, uploads, http

    async def put(self, request: Request) -> Response:
        """Store what the URL serves. 201 when it is new here, 200 when it was here already."""
        event = self._gate.authorize(request, "upload")
        url = await _url_untrusted(request)
        digest = _meant(url, digests(event))
        reason = self._policy.allow(event.pubkey, digest, 0)
        if reason is not None:
            raise refusal(403, reason)
        known = self._store.path(digest)
        size = known.stat().st_size if known is not None else await self._measure(url, digest)
        passage = await self._uploads.admit(request, event.pubkey, digest, size, path=_PATH)
        moved = None
        try:
            response = await self._take(request, url, event.pubkey, digest, size)
            moved = size
        finally:
            with trio.CancelScope(shield=True):
                await passage.finish(moved)
        return response

    async def _take(self, request: Request, url: httpx.URL, owner: Pubkey, digest: Digest, size: int) -> Response:
        known = await self._store.claim(digest, owner)
        if known is not None:
            return JSONResponse(self._gate.descriptor(request, known))
        async with self._uploads.on_its_way(owner, size):
            created = await self._fetch(url, owner, digest, size)
        upload = Upload(owner, digest, size, self._gate.now())
        return JSONResponse(self._gate.descriptor(request, upload), 201 if created else 200)

    async def _measure(self, url: httpx.URL, digest: Digest) -> int:
        """The size that the origin tells: quota and price are asked about before a byte of it is fetched."""
        try:
            return await measure(self._http, url, digest, Tuning())
        except (RemoteProtocolError, Unavailable) as error:
            raise refusal(502, str(error)) from error

    async def _fetch(self, url: httpx.URL, owner: Pubkey, digest: Digest, size: int) -> bool:
        try:
            with trio.move_on_after(_LONGEST_S):
                async with self._store.incoming(size) as incoming:
                    await Download(self._http, digest, incoming, Tuning()).whole(url)
                    if incoming.size != size:
                        raise RemoteProtocolError("blob", f"ended after {incoming.size} of {size} bytes", whose=url.host)
                    return await self._store.commit(incoming, digest, owner)
        except StorageFull:
            raise
        except DigestMismatch as error:
            raise refusal(409, str(error)) from error
        except (RemoteProtocolError, Unavailable) as error:
            raise refusal(502, str(error)) from error
        raise refusal(502, f"{url.host}: took longer than {_LONGEST_S:.0f} s")


async def _url_untrusted(request: Request) -> httpx.URL:
    """The URL that the body names. Raises HTTPException 400, 408, 413."""
    body = b""
    try:
        async with aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > _LARGEST_BODY:
                    raise refusal(413, f"the body names a URL, in at most {_LARGEST_BODY} bytes")
        text = _decoder.decode(body).get("url")
    except ClientDisconnect as error:
        raise refusal(408, "the body did not arrive in time") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise refusal(400, f'the body is not of the form {{"url": "https://…"}}: {error}') from error
    if not isinstance(text, str):
        raise refusal(400, "the body has no url")
    try:
        return parse_url_untrusted(text)
    except RemoteProtocolError as error:
        raise refusal(400, str(error)) from error


def _meant(url: httpx.URL, named: frozenset[str]) -> Digest:
    """The blob that is to be mirrored: the one that the token names, or of several the one that the URL ends with (BUD-03)."""
    if not named:
        raise refusal(401, "authorization: it is for no blob")
    if len(named) != 1:
        named = named & set(_NAME.findall(url.path)[-1:])
    if len(named) != 1 or not all(map(is_hex32, named)):
        raise refusal(400, "the token must name the blob, and the URL too if the token names several")
    return Digest(*named)
