"""The Blossom server: an ASGI application over a `BlobStore` (BUD-01, 02, 04, 06, 11, 12). The HTTP host serves it.

Everything is `application/octet-stream`. A refusal carries its reason in `X-Reason` and, for older clients, in a JSON `message`.
"""

from __future__ import annotations

import re
from typing import Final

import httpx
import trio
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nostrain.blobs.gate import Gate, Refused, refusal
from nostrain.blobs.housekeeping import Housekeeping
from nostrain.blobs.incoming import StorageFull
from nostrain.blobs.metered import Metered
from nostrain.blobs.mirror import Mirrors
from nostrain.blobs.policy import BlobLimits, UploadPolicy
from nostrain.blobs.serving import BlobResponse, OpenBlob, asked_range, unchanged
from nostrain.blobs.store import BlobStore
from nostrain.blobs.uploads import Uploads
from nostrain.ports.clock import Clock
from nostrain.ports.tolls import FreePassage, NoTolls, Tolls, Use
from nostrain.units import Digest, Pubkey, is_hex32

_NAME: Final = re.compile(r"([0-9a-f]{64})(?:\.[A-Za-z0-9]{1,16})?")
_PAGE: Final = 100
_LARGEST_PAGE: Final = 1000


def blossom_app(
    store: BlobStore,
    policy: UploadPolicy,
    clock: Clock,
    *,
    limits: BlobLimits | None = None,
    public_url: str | None = None,
    tolls: Tolls | None = None,
    housekeeping: Housekeeping | None = None,
    mirror: httpx.AsyncClient | None = None,
) -> ASGIApp:
    """The server as an ASGI application. `public_url`: how the world reaches it; None when that is the address it is bound to.

    `tolls` decides what is paid for; without it everything is free. `housekeeping` makes room; without it nothing is removed. `mirror` fetches for BUD-04 from where strangers say, and so has to refuse
    what they may not reach through us; without it there is no such route.
    """
    gate = Gate(clock, public_url, tolls or NoTolls())
    housekeeping = housekeeping or Housekeeping(store, clock)
    uploads = Uploads(store, gate, policy, limits or BlobLimits(), housekeeping)
    blobs = _Blobs(store, gate, housekeeping)
    further = [] if mirror is None else [Route("/mirror", Mirrors(store, gate, policy, uploads, mirror).put, methods=["PUT"])]
    routes = [
        *further,
        Route("/upload", uploads.head, methods=["HEAD"]),
        Route("/upload", uploads.put, methods=["PUT"]),
        Route("/list/{owner}", blobs.listing, methods=["GET"]),
        Route("/{name}", blobs.get, methods=["GET", "HEAD"]),
        Route("/{name}", blobs.delete, methods=["DELETE"]),
    ]
    return _AnyOrigin(Starlette(routes=routes, exception_handlers={HTTPException: _refuse, StorageFull: _full}))


class _Blobs:
    def __init__(self, store: BlobStore, gate: Gate, housekeeping: Housekeeping) -> None:
        self._store, self._gate, self._housekeeping = store, gate, housekeeping

    async def get(self, request: Request) -> ASGIApp:
        digest = _digest(request)
        blob = await trio.to_thread.run_sync(self._open, digest)
        try:
            response = await self._answer(request, digest, blob)
        except BaseException:
            blob.close()
            raise
        return response

    def _open(self, digest: Digest) -> OpenBlob:
        path = self._store.path(digest)
        try:
            if path is not None:
                return OpenBlob(path, digest)
        except FileNotFoundError:
            pass  # it was removed in between
        raise refusal(404, "no such blob here")

    async def _answer(self, request: Request, digest: Digest, blob: OpenBlob) -> ASGIApp:
        stretch = asked_range(request.headers, blob.etag, blob.size) if request.method == "GET" else None
        passage = await self._gate.admit(request, Use("download", "GET", f"/{digest}", blob.size, digest, preview=request.method == "HEAD"))
        free = isinstance(passage, FreePassage)
        headers = {"Cache-Control": f"{'public' if free else 'private'}, max-age=31536000, immutable"}
        if request.method == "GET":
            self._store.touch(digest)
        sunset = await self._housekeeping.sunset(digest)
        if sunset is not None:
            headers["Sunset"] = sunset
        if free and unchanged(request.headers, blob.etag):
            blob.close()
            return Response(status_code=304, headers={"ETag": blob.etag, **headers})
        response = BlobResponse(blob, headers, stretch)
        return response if free else Metered(response, passage)

    async def delete(self, request: Request) -> Response:
        digest = _digest(request)
        owner = self._gate.authorize(request, "delete", digest).pubkey
        if await self._store.delete(digest, owner):
            return Response(status_code=204)
        if self._store.path(digest) is None:
            raise refusal(404, "no such blob here")
        raise refusal(403, "the blob was not uploaded by this key")

    async def listing(self, request: Request) -> ASGIApp:
        owner, cursor = request.path_params["owner"], request.query_params.get("cursor")
        limit = request.query_params.get("limit", str(_PAGE))
        if not is_hex32(owner) or not (cursor is None or is_hex32(cursor)):
            raise refusal(400, "the key and the cursor must be 64 lowercase hex digits")
        if not (limit.isascii() and limit.isdecimal() and len(limit) <= 6):
            raise refusal(400, "limit: not a number")
        after = None if cursor is None else Digest(cursor)
        passage = await self._gate.admit(request, Use("list", "GET", f"/list/{owner}"))
        found = await self._store.uploads(Pubkey(owner), after, min(int(limit), _LARGEST_PAGE))
        response = JSONResponse([self._gate.descriptor(request, upload) for upload in found])
        return response if isinstance(passage, FreePassage) else Metered(response, passage)


def _digest(request: Request) -> Digest:
    match = _NAME.fullmatch(request.path_params["name"])
    if match is None:
        raise refusal(400, "a blob is named by its SHA-256 in lowercase hex, with or without an extension")
    return Digest(match[1])


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = {"X-Reason": error.detail, **(error.headers or {})}
    response = JSONResponse({"message": error.detail}, error.status_code, headers=headers)
    for name, value in error.pairs if isinstance(error, Refused) else ():
        response.headers.append(name, value)
    return response


async def _full(request: Request, error: Exception) -> Response:
    return await _refuse(request, refusal(507, str(error)))


class _AnyOrigin:
    """BUD-01's cross-origin headers on every response, and the answer to preflight requests."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_open(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers["Access-Control-Allow-Origin"] = "*"
                headers["Access-Control-Expose-Headers"] = "*"
            await send(message)

        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            allowed = {
                "Access-Control-Allow-Headers": "Authorization, *",
                "Access-Control-Allow-Methods": "GET, HEAD, PUT, DELETE",
                "Access-Control-Max-Age": "86400",
            }
            await Response(status_code=204, headers=allowed)(scope, receive, send_open)
        else:
            await self._app(scope, receive, send_open)
