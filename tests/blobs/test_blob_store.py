"""The store on disk: what a crash, a full disk, a cancellation or a wrong digest leaves behind, which is nothing."""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from nostrain.blobs import incoming as incoming_module
from nostrain.blobs import linking as linking_module
from nostrain.blobs.incoming import STEP, StorageFull
from nostrain.blobs.store import LOCAL, BlobStore, DigestMismatch
from nostrain.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.units import Digest, Pubkey

from .blossom_world import StillClock

DATA = random.Random(0).randbytes(STEP + 12_345)
DIGEST = Digest(sha256_hex(DATA))
ALICE, BOB = Pubkey("aa" * 32), Pubkey("bb" * 32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BlobStore]:
    store = BlobStore(tmp_path / "store", StillClock(), reserve=0)
    yield store
    store.close()


async def pieces(data: bytes, size: int = 70_000) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def blobs_and_leftovers(tmp_path: Path) -> list[str]:
    return [str(path.relative_to(tmp_path / "store")) for path in (tmp_path / "store").glob("*/*")]


async def test_a_stream_becomes_a_read_only_file(store: BlobStore) -> None:
    assert await store.put_stream(pieces(DATA), DIGEST, len(DATA), ALICE)
    path = store.path(DIGEST)
    assert path is not None
    assert path.read_bytes() == DATA
    assert path.stat().st_mode & 0o777 == 0o444
    assert await store.usage(ALICE) == len(DATA)
    assert not await store.put_stream(pieces(DATA), DIGEST, len(DATA), BOB)


@pytest.mark.parametrize(
    ("digest", "size", "error"),
    [
        (Digest("00" * 32), len(DATA), DigestMismatch),
        (DIGEST, len(DATA) - 1, RemoteProtocolError),
        (DIGEST, len(DATA) + 1, RemoteProtocolError),
    ],
)
async def test_what_is_not_the_blob_leaves_nothing(
    store: BlobStore, tmp_path: Path, digest: Digest, size: int, error: type[Exception]
) -> None:
    source = pieces(DATA)
    with pytest.raises(error):
        await store.put_stream(source, digest, size, ALICE)
    await source.aclose()
    assert blobs_and_leftovers(tmp_path) == []
    assert await store.usage(ALICE) == 0


async def test_cancellation_leaves_nothing(store: BlobStore, tmp_path: Path) -> None:
    started = trio.Event()

    class Stalled:
        def __aiter__(self) -> AsyncIterator[bytes]:
            return self

        async def __anext__(self) -> bytes:
            if not started.is_set():
                started.set()
                return DATA
            await trio.sleep_forever()
            raise AssertionError

    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.put_stream, Stalled(), DIGEST, len(DATA) + 1, ALICE)
        await started.wait()
        nursery.cancel_scope.cancel()
    assert blobs_and_leftovers(tmp_path) == []


async def test_what_a_crash_left_is_cleared_and_what_was_stored_stays(store: BlobStore, tmp_path: Path) -> None:
    await store.put_stream(pieces(DATA), DIGEST, len(DATA), ALICE)
    store.close()
    (tmp_path / "store/tmp/17.part").write_bytes(b"half")
    reopened = BlobStore(tmp_path / "store", StillClock(), reserve=0)
    try:
        assert blobs_and_leftovers(tmp_path) == [f"{DIGEST[:2]}/{DIGEST}"]
        assert await reopened.usage(ALICE) == len(DATA)
        assert await reopened.delete(DIGEST, ALICE)
        assert reopened.path(DIGEST) is None
    finally:
        reopened.close()


async def test_adopting_a_file_that_may_still_change_copies_it(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "work.bin"
    source.write_bytes(DATA)
    adopted = await store.adopt(source, DIGEST)
    source.write_bytes(b"overwritten by its owner")
    assert adopted.read_bytes() == DATA
    assert await store.adopt(tmp_path / "missing", DIGEST) == adopted


async def test_adopting_a_sealed_file_links_it(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "sealed.bin"
    source.write_bytes(DATA)
    source.chmod(0o444)
    adopted = await store.adopt(source, DIGEST)
    assert adopted.stat().st_ino == source.stat().st_ino


async def test_a_sealed_file_on_another_file_system_is_copied(store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_file_system(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_file_system)
    source = tmp_path / "sealed.bin"
    source.write_bytes(DATA)
    source.chmod(0o444)
    adopted = await store.adopt(source, DIGEST)
    assert adopted.stat().st_ino != source.stat().st_ino
    assert adopted.read_bytes() == DATA


@pytest.mark.parametrize("mode", [0o644, 0o444])
async def test_adopting_another_blob_is_our_own_mistake(store: BlobStore, tmp_path: Path, mode: int) -> None:
    source = tmp_path / "work.bin"
    source.write_bytes(DATA)
    source.chmod(mode)
    with pytest.raises(LocalProtocolError):
        await store.adopt(source, Digest("00" * 32))
    assert blobs_and_leftovers(tmp_path) == []


async def test_nobody_outside_deletes_what_is_ours(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "work.bin"
    source.write_bytes(DATA)
    adopted = await store.adopt(source, DIGEST)
    assert (await store.claim(DIGEST, ALICE)) is not None
    assert await store.delete(DIGEST, ALICE)
    assert not await store.delete(DIGEST, ALICE)
    assert adopted.exists()
    assert await store.delete(DIGEST, LOCAL)
    assert not adopted.exists()


async def test_what_is_discarded_stays_for_others(store: BlobStore) -> None:
    for owner in (ALICE, LOCAL, BOB):
        await store.put_stream(pieces(DATA), DIGEST, len(DATA), owner)
    await store.discard(DIGEST, (ALICE, LOCAL))
    path = store.path(DIGEST)
    assert path is not None
    assert (await store.usage(ALICE), await store.usage(BOB)) == (0, len(DATA))
    await store.discard(DIGEST, (BOB,))
    assert not path.exists()


async def test_a_file_that_a_crash_left_without_an_owner_is_discarded(store: BlobStore) -> None:
    await store.put_stream(pieces(DATA), DIGEST, len(DATA), ALICE)
    assert store._index.remove(ALICE, DIGEST)
    await store.discard(DIGEST, ())
    assert store.path(DIGEST) is None


async def test_only_a_digest_names_a_blob(store: BlobStore) -> None:
    with pytest.raises(LocalProtocolError):
        store.path(Digest("../index.sqlite"))
    assert await store.claim(DIGEST, ALICE) is None


class Usage(NamedTuple):
    total: int
    used: int
    free: int


async def test_the_reserve_is_never_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1000, 0, 1000))
    store = BlobStore(tmp_path / "store", StillClock(), reserve=400)
    try:
        async with store.incoming(10_000) as first, store.incoming(10_000) as second:
            first.expect(500)
            with pytest.raises(StorageFull, match="101 bytes wanted, 100 free"):
                second.expect(101)
            second.expect(100)
            with pytest.raises(StorageFull):
                await store.put_stream(pieces(DATA), DIGEST, 1)
        async with store.incoming(10_000) as third:
            third.expect(600)
    finally:
        store.close()


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_fills_up_under_an_adoption(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    def full(fd: int, data: bytes) -> None:
        raise OSError(error, os.strerror(error))

    source = tmp_path / "work.bin"
    source.write_bytes(DATA)
    for module in (incoming_module, linking_module):
        monkeypatch.setattr(module, "write_all", full)
    with pytest.raises(StorageFull):
        await store.adopt(source, DIGEST)
    assert blobs_and_leftovers(tmp_path) == []


async def test_another_failure_of_the_disk_is_not_called_full(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, data: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(incoming_module, "write_all", broken)
    with pytest.raises(OSError, match="Input/output"):
        await store.put_stream(pieces(b"x"), Digest(sha256_hex(b"x")), 1)


async def test_a_row_that_cannot_be_written_takes_its_file_back(store: BlobStore, tmp_path: Path) -> None:
    index = sqlite3.connect(tmp_path / "store/index.sqlite")
    index.execute("CREATE TRIGGER full BEFORE INSERT ON upload BEGIN SELECT RAISE(ABORT, 'no'); END")
    index.close()
    with pytest.raises(sqlite3.IntegrityError):
        await store.put_stream(pieces(b"x"), Digest(sha256_hex(b"x")), 1, ALICE)
    assert blobs_and_leftovers(tmp_path) == []


def test_an_index_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    BlobStore(tmp_path / "store", StillClock()).close()
    index = sqlite3.connect(tmp_path / "store/index.sqlite")
    index.execute("PRAGMA user_version = 3")
    index.close()
    with pytest.raises(ConfigError, match="has version 3"):
        BlobStore(tmp_path / "store", StillClock())
