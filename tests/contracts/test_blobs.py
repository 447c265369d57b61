"""What every `ports.blobs.Blobs` promises: the fake of the simulations, and the Blossom client against the Blossom server on loopback."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from nostrain.blobs.app import blossom_app
from nostrain.blobs.client import BlossomClient
from nostrain.blobs.store import BlobStore
from nostrain.blobs.tuning import Tuning
from nostrain.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.hashes import sha256_hex
from nostrain.http.server import serve
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.ports.blobs import Blobs
from nostrain.testing.blobs import FakeBlobs, FakeBlobServer
from nostrain.units import Digest, Pubkey, UnixTime

PATIENCE = Tuning(attempts=2, backoff=0.001)


@dataclass
class StillClock:
    time: int = 1_700_000_000

    def now(self) -> UnixTime:
        return UnixTime(self.time)

    async def sleep_until(self, when: UnixTime) -> None:
        raise AssertionError("blobs do not wait for the wall clock")


class World:
    """One server and two participants, `alice` and `bob`."""

    alice: Blobs
    bob: Blobs
    url: str

    def replace(self, digest: Digest, data: bytes) -> None:
        """Make the server serve `data` as `digest`."""
        raise AssertionError

    def refuse(self, reason: str) -> None:
        """Make the server refuse uploads for good."""
        raise AssertionError

    def vanish(self) -> None:
        """Take the server away."""
        raise AssertionError


class FakeWorld(World):
    def __init__(self, folder: Path) -> None:
        self.server = FakeBlobServer()
        self.url = self.server.url
        self.alice = FakeBlobs(self.server, folder / "alice", random.Random(1))
        self.bob = FakeBlobs(self.server, folder / "bob", random.Random(2))

    def replace(self, digest: Digest, data: bytes) -> None:
        self.server.blobs[digest] = data

    def refuse(self, reason: str) -> None:
        self.server.refusal = reason

    def vanish(self) -> None:
        self.server.reachable = False


@dataclass
class SwitchedPolicy:
    reason: str | None = field(default=None)

    def allow(self, pubkey: Pubkey, digest: Digest, size: int) -> str | None:
        return self.reason


class RealWorld(World):
    def __init__(self, folder: Path, url: str, policy: SwitchedPolicy, serving: trio.CancelScope) -> None:
        self.folder, self.url, self.policy, self.serving = folder, url, policy, serving

    def replace(self, digest: Digest, data: bytes) -> None:
        path = self.folder / "server" / digest[:2] / digest
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    def refuse(self, reason: str) -> None:
        self.policy.reason = reason

    def vanish(self) -> None:
        self.serving.cancel()


@pytest.fixture(params=["fake", "blossom"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "fake":
        yield FakeWorld(tmp_path)
        return
    clock, policy = StillClock(), SwitchedPolicy()
    stores = {name: BlobStore(tmp_path / name, clock) for name in ("server", "alice", "bob")}
    async with trio.open_nursery() as nursery:
        url: str = await nursery.start(serve, blossom_app(stores["server"], policy, clock), "127.0.0.1:0")
        world = RealWorld(tmp_path, url, policy, nursery.cancel_scope)
        with trio.CancelScope(shield=True):
            alice, bob = (
                BlossomClient(stores[name], servers, NostrSigner(RootSecret(name.encode().ljust(32))), clock, tuning=PATIENCE)
                for name, servers in (("alice", [url]), ("bob", []))
            )
            async with alice, bob:
                world.alice, world.bob = alice, bob
                yield world
        nursery.cancel_scope.cancel()
    for store in stores.values():
        store.close()


def file_of(folder: Path, data: bytes) -> tuple[Path, Digest]:
    path = folder / "source.bin"
    path.write_bytes(data)
    return path, Digest(sha256_hex(data))


@pytest.mark.parametrize("data", [b"", b"delta", bytes(range(256)) * 12_000], ids=["empty", "small", "3 MB"])
async def test_what_one_puts_another_gets(world: World, tmp_path: Path, data: bytes) -> None:
    path, digest = file_of(tmp_path, data)
    urls = await world.alice.put(path, digest)
    assert urls == (f"{world.url}/{digest}",)
    fetched = await world.bob.get(digest, urls, len(data))
    assert fetched.read_bytes() == data
    assert not fetched.stat().st_mode & 0o222


async def test_put_is_idempotent(world: World, tmp_path: Path) -> None:
    path, digest = file_of(tmp_path, b"twice")
    assert await world.alice.put(path, digest) == await world.alice.put(path, digest)


async def test_a_file_that_is_not_the_blob_is_our_own_mistake(world: World, tmp_path: Path) -> None:
    path, _ = file_of(tmp_path, b"data")
    with pytest.raises(LocalProtocolError):
        await world.alice.put(path, Digest("00" * 32))


async def test_the_local_copy_is_used_when_the_server_is_gone(world: World, tmp_path: Path) -> None:
    path, digest = file_of(tmp_path, b"kept")
    urls = await world.alice.put(path, digest)
    first = await world.bob.get(digest, urls, 100)
    world.vanish()
    assert await world.bob.get(digest, (), 100) == first
    assert first.read_bytes() == b"kept"


async def test_the_limit_holds_for_the_local_copy_too(world: World, tmp_path: Path) -> None:
    path, digest = file_of(tmp_path, b"12345")
    urls = await world.alice.put(path, digest)
    await world.bob.get(digest, urls, 5)
    with pytest.raises(RemoteProtocolError, match="at most 4"):
        await world.bob.get(digest, urls, 4)


async def test_what_is_discarded_is_fetched_again(world: World, tmp_path: Path) -> None:
    path, digest = file_of(tmp_path, b"once more")
    urls = await world.alice.put(path, digest)
    first = await world.bob.get(digest, urls, 100)
    for _ in range(2):
        await world.bob.discard(digest)
        assert not first.exists()
    assert (await world.bob.get(digest, urls, 100)).read_bytes() == b"once more"
    await world.bob.discard(digest)
    world.replace(digest, b"a forgery")
    with pytest.raises(RemoteProtocolError, match="SHA-256"):
        await world.bob.get(digest, urls, 100)


async def test_a_blob_larger_than_wanted_is_refused(world: World, tmp_path: Path) -> None:
    path, digest = file_of(tmp_path, b"12345")
    urls = await world.alice.put(path, digest)
    with pytest.raises(RemoteProtocolError, match="at most 4"):
        await world.bob.get(digest, urls, 4)
    assert (await world.bob.get(digest, urls, 5)).read_bytes() == b"12345"


async def test_other_bytes_under_the_digest_are_refused_and_not_kept(world: World, tmp_path: Path) -> None:
    path, digest = file_of(tmp_path, b"the truth")
    urls = await world.alice.put(path, digest)
    world.replace(digest, b"a forgery")
    with pytest.raises(RemoteProtocolError, match="SHA-256"):
        await world.bob.get(digest, urls, 100)
    world.replace(digest, b"the truth")
    assert (await world.bob.get(digest, urls, 100)).read_bytes() == b"the truth"


async def test_an_unknown_blob_is_unavailable(world: World) -> None:
    digest = Digest("ab" * 32)
    with pytest.raises(Unavailable):
        await world.bob.get(digest, [f"{world.url}/{digest}"], 100)
    with pytest.raises(Unavailable):
        await world.bob.get(digest, (), 100)


async def test_only_http_urls_are_asked(world: World) -> None:
    with pytest.raises(RemoteProtocolError, match="URL"):
        await world.bob.get(Digest("ab" * 32), ["file:///etc/passwd", "ftp://example.org/x", "nonsense"], 100)


async def test_a_name_that_is_no_digest_is_refused(world: World) -> None:
    with pytest.raises(RemoteProtocolError, match="SHA-256"):
        await world.bob.get(Digest("../../etc/passwd"), [f"{world.url}/x"], 100)


async def test_a_server_that_is_gone_is_unavailable(world: World, tmp_path: Path) -> None:
    path, digest = file_of(tmp_path, b"late")
    world.vanish()
    with pytest.raises(Unavailable):
        await world.alice.put(path, digest)
    with pytest.raises(Unavailable):
        await world.bob.get(digest, [f"{world.url}/{digest}"], 100)


async def test_a_refused_upload_tells_the_reason(world: World, tmp_path: Path) -> None:
    path, digest = file_of(tmp_path, b"unwanted")
    world.refuse("not enrolled")
    with pytest.raises(RemoteProtocolError, match="not enrolled"):
        await world.alice.put(path, digest)


async def test_many_at_once(world: World, tmp_path: Path) -> None:
    path, digest = file_of(tmp_path, b"popular" * 1000)
    urls = await world.alice.put(path, digest)
    found: list[Path] = []

    async def fetch() -> None:
        found.append(await world.bob.get(digest, urls, 10_000))

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(fetch)
    assert {path.read_bytes() for path in found} == {b"popular" * 1000}
    assert len(found) == 8


async def test_seeded_faults_of_the_fake_repeat(tmp_path: Path) -> None:
    async def outcomes(seed: int) -> list[bool]:
        blobs = FakeBlobs(FakeBlobServer(), tmp_path / str(seed), random.Random(seed), unavailable=0.5)
        path, digest = file_of(tmp_path, b"x")
        results = []
        for _ in range(32):
            try:
                await blobs.put(path, digest)
                results.append(True)
            except Unavailable:
                results.append(False)
        return results

    first = await outcomes(7)
    assert first == await outcomes(7)
    assert set(first) == {True, False}
