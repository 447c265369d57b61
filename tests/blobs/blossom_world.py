"""A Blossom server's application with a key and a clock of the test's, and tokens that are right but for one thing."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from nostrain.blobs.app import blossom_app
from nostrain.blobs.policy import BlobLimits
from nostrain.blobs.store import BlobStore
from nostrain.hashes import sha256_hex
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.protocol.event import Draft
from nostrain.units import Digest, Pubkey, UnixTime
from nostrain.wire.event import encode_event

NOW = 1_700_000_000
HOST = "blobs.example"
PUBLIC = f"https://{HOST}"
DATA = bytes(range(256)) * 40
DIGEST = Digest(sha256_hex(DATA))


@dataclass
class StillClock:
    time: int = NOW

    def now(self) -> UnixTime:
        return UnixTime(self.time)

    async def sleep_until(self, when: UnixTime) -> None:
        raise AssertionError("blobs do not wait for the wall clock")


@dataclass
class Policy:
    reasons: dict[Pubkey, str] = field(default_factory=dict)

    def allow(self, pubkey: Pubkey, digest: Digest, size: int) -> str | None:
        return self.reasons.get(pubkey)


def signer(name: str) -> NostrSigner:
    return NostrSigner(RootSecret(name.encode().ljust(32)))


def token(
    verb: str = "upload",
    *blobs: str,
    who: str = "alice",
    kind: int = 24242,
    created_at: int = NOW,
    expiration: str | None = str(NOW + 60),
    servers: tuple[str, ...] = (),
) -> str:
    tags: list[tuple[str, ...]] = [("t", verb), *(("x", blob) for blob in blobs), *(("server", server) for server in servers)]
    if expiration is not None:
        tags.append(("expiration", expiration))
    event = signer(who).sign(Draft(UnixTime(created_at), kind, tuple(tags), "test"))
    return "Nostr " + base64.b64encode(encode_event(event)).decode()


class Body(httpx.AsyncByteStream):
    """A request body in pieces; unlike httpx's own it may be abandoned half-way without a warning."""

    def __init__(self, data: bytes) -> None:
        self._pieces = iter([data[start : start + 1000] for start in range(0, len(data), 1000)])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


class Server:
    """The application, asked in process."""

    def __init__(self, folder: Path, limits: BlobLimits | None = None, mirror: httpx.AsyncClient | None = None) -> None:
        self.clock, self.policy = StillClock(), Policy()
        self.store = BlobStore(folder / "store", self.clock, reserve=0)
        self.app = blossom_app(self.store, self.policy, self.clock, limits=limits or BlobLimits(), public_url=PUBLIC, mirror=mirror)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url=PUBLIC)

    async def put(self, data: bytes = DATA, authorization: str | None = None, **headers: str | None) -> httpx.Response:
        """Upload `data` with a good token, except for what `authorization` and `headers` (None: omit) say."""
        sent: dict[str, str | None] = {
            "authorization": authorization or token("upload", sha256_hex(data)),
            "x-sha-256": sha256_hex(data),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        headers = {name: value for name, value in sent.items() if value is not None}
        request = self.http.build_request("PUT", "/upload", headers={"content-length": str(len(data)), **headers})
        request.stream = Body(data)
        return await self.http.send(request)

    def files(self) -> dict[str, bytes]:
        """Every file under the store's folders but the index."""
        root = self.store._root
        return {str(path.relative_to(root)): path.read_bytes() for path in root.glob("*/*") if path.is_file()}


def reason(response: httpx.Response) -> Any:
    """The reason of a refusal, which the header and the JSON must agree on."""
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.json()["message"] == response.headers["x-reason"]
    return response.headers["x-reason"]
