"""Blobs for simulations: no threads, no sockets, trio only. Passes the same contract tests as the Blossom client and server."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import trio

from nostrain.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.hashes import sha256_hex
from nostrain.units import Digest, EventId, Pubkey, is_hex32


@dataclass
class FakeBlobServer:
    """One server that all participants of a simulation share."""

    url: str = "http://blobs.test"
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    """What it serves; a test may put bytes under a digest that is not theirs."""
    reachable: bool = True
    refusal: str | None = None
    """Why it refuses every upload, or None."""


class FakeBlobs:
    """`ports.blobs.Blobs` for one participant, whose fetched files lie in `folder`.

    Each call fails with Unavailable with probability `unavailable`, and otherwise takes `latency` seconds of trio's clock; chances come
    from `rng` alone, so a seed fixes the whole run.
    """

    def __init__(self, server: FakeBlobServer, folder: Path, rng: random.Random, *, unavailable: float = 0.0, latency: float = 0.0) -> None:
        self._server, self._folder, self._rng = server, folder, rng
        self._unavailable, self._latency = unavailable, latency

    async def put(self, path: Path, digest: Digest, servers: Sequence[str] = (), ticket: EventId | None = None) -> tuple[str, ...]:
        """As the port; there is but one server, and it asks for no ticket. The bytes are read before the first checkpoint."""
        data = _read(path)
        if sha256_hex(data) != digest:
            raise LocalProtocolError(f"{path} is not the blob {digest}")
        await self._travel()
        if self._server.refusal is not None:
            raise RemoteProtocolError("upload", self._server.refusal, whose=self._server.url)
        self._server.blobs[digest] = data
        return (f"{self._server.url}/{digest}",)

    async def get(self, digest: Digest, urls: Sequence[str], max_size: int, author: Pubkey | None = None) -> Path:
        """As the port; nobody has a list of servers."""
        if not is_hex32(digest):
            raise RemoteProtocolError("blob", "its name is not a SHA-256 in lowercase hex")
        path = self._folder / digest
        if not path.is_file():
            await self._travel()
            data = self._served(digest, urls)
            if len(data) > max_size:
                raise RemoteProtocolError("blob", f"{len(data)} bytes, at most {max_size} are wanted", whose=self._server.url)
            if sha256_hex(data) != digest:
                raise RemoteProtocolError("blob", f"has the SHA-256 {sha256_hex(data)}, not {digest}", whose=self._server.url)
            _write(path, data)
        elif path.stat().st_size > max_size:
            raise RemoteProtocolError("blob", f"{path.stat().st_size} bytes, at most {max_size} are wanted")
        return path

    async def discard(self, digest: Digest, owners: Sequence[Pubkey] = ()) -> None:
        """As the port; nobody stores anything with us."""
        await trio.lowlevel.checkpoint()
        (self._folder / digest).unlink(missing_ok=True)

    async def _travel(self) -> None:
        await trio.sleep(self._latency)
        if not self._server.reachable or self._rng.random() < self._unavailable:
            raise Unavailable(f"{self._server.url}: does not answer")

    def _served(self, digest: Digest, urls: Sequence[str]) -> bytes:
        if urls and not any(url.startswith(("http://", "https://")) for url in urls):
            raise RemoteProtocolError("blob URL", "not a plain http or https URL")
        data = self._server.blobs.get(digest)
        if data is None or not any(url == f"{self._server.url}/{digest}" for url in urls):
            raise Unavailable(f"no source has the blob {digest} now")
        return data


def _read(path: Path) -> bytes:
    return path.read_bytes()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o444)
