"""What a server removes by itself: what nobody asks for, what is in the way, and what a removal that was cut off leaves."""

from __future__ import annotations

import os
import sqlite3
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest
import trio
from starlette.types import Message

from nostrain.blobs import housekeeping
from nostrain.blobs.app import blossom_app
from nostrain.blobs.housekeeping import Housekeeping, Retention
from nostrain.blobs.incoming import STEP, StorageFull
from nostrain.blobs.policy import BlobLimits
from nostrain.blobs.store import LOCAL, BlobStore
from nostrain.hashes import sha256_hex
from nostrain.units import Digest

from .blossom_world import DATA, DIGEST, NOW, PUBLIC, Server, StillClock, signer, token

DAY = 86_400
WEEK = Retention(idle=7 * DAY)
OTHER = b"something else"


class Kept(Server):
    """A server whose store is kept to `rules`."""

    def __init__(self, folder: Path, rules: Retention) -> None:
        super().__init__(folder)
        self.rules = rules
        self.reopen()

    def reopen(self) -> None:
        """As after a restart."""
        root = self.store._root
        self.store.close()
        self.store = BlobStore(root, self.clock, reserve=0)
        self.keeper = Housekeeping(self.store, self.clock, self.rules)
        self.app = blossom_app(self.store, self.policy, self.clock, public_url=PUBLIC, housekeeping=self.keeper)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url=PUBLIC)

    async def take(self, data: bytes = DATA, who: str = "alice") -> int:
        """The status of an upload, now."""
        return (await self.put(data, authorization=self.allows(data, who))).status_code

    def allows(self, data: bytes, who: str = "alice") -> str:
        return token("upload", sha256_hex(data), who=who, created_at=self.clock.time, expiration=str(self.clock.time + 60))

    def has(self, data: bytes) -> bool:
        return self.store.path(Digest(sha256_hex(data))) is not None


async def test_what_nobody_asks_for_goes(tmp_path: Path) -> None:
    server = Kept(tmp_path, WEEK)
    await server.put()
    await server.put(OTHER)
    server.clock.time += 6 * DAY
    assert (await server.http.get(f"/{DIGEST}")).status_code == 200
    assert (await server.http.head(f"/{sha256_hex(OTHER)}")).status_code == 200  # whoever looks whether it is there has not asked for it
    server.clock.time += DAY
    assert await server.keeper.sweep() == 0
    server.clock.time += 1
    assert await server.keeper.sweep() == 1
    assert (server.has(DATA), server.has(OTHER)) == (True, False)
    assert (await server.http.get(f"/{sha256_hex(OTHER)}")).status_code == 404
    assert (await server.http.get(f"/list/{signer('alice').pubkey}")).json()[0]["sha256"] == DIGEST
    assert await server.store.usage(signer("alice").pubkey) == len(DATA)
    server.clock.time += 6 * DAY + 1
    assert await server.keeper.sweep() == 1
    assert server.files() == {}
    server.store.close()


async def test_a_second_upload_counts_as_a_use(tmp_path: Path) -> None:
    server = Kept(tmp_path, WEEK)
    await server.put()
    server.clock.time += 6 * DAY
    assert await server.take(who="bob") == 200
    server.clock.time += 6 * DAY
    assert await server.keeper.sweep() == 0
    server.clock.time += 2 * DAY
    assert await server.keeper.sweep() == 1
    assert await server.take() == 201
    server.store.close()


async def test_what_some_have_stored_stays(tmp_path: Path) -> None:
    server = Kept(tmp_path, Retention(idle=DAY, store=len(DATA) + len(OTHER), grace=0, keep=frozenset({LOCAL, signer("bob").pubkey})))
    await server.take(OTHER, "bob")
    await server.put()
    await server.store.claim(DIGEST, LOCAL)
    server.clock.time += 100 * DAY
    assert await server.keeper.sweep() == 0
    assert await server.take(b"new") == 507
    assert await server.store.delete(DIGEST, LOCAL)
    assert await server.take(b"new") == 201
    assert (server.has(DATA), server.has(OTHER)) == (False, True)
    server.store.close()


async def test_the_longest_unused_make_room(tmp_path: Path) -> None:
    server = Kept(tmp_path, Retention(store=3000, grace=DAY))
    blobs = [bytes([n]) * 1000 for n in range(3)]
    for data in blobs:
        await server.take(data)
        server.clock.time += 60
    server.clock.time += DAY
    await server.http.get(f"/{sha256_hex(blobs[0])}")
    new = os.urandom(1500)
    asked = {"X-SHA-256": sha256_hex(new), "X-Content-Length": "1500", "Authorization": server.allows(new)}
    assert (await server.http.head("/upload", headers=asked)).status_code == 200
    assert all(map(server.has, blobs))  # who only asks removes nothing
    assert await server.take(new) == 201
    assert [server.has(data) for data in (*blobs, new)] == [True, False, False, True]
    server.store.close()


async def test_what_was_used_lately_is_not_in_the_way_and_nothing_is_removed_in_vain(tmp_path: Path) -> None:
    server = Kept(tmp_path, Retention(store=3000, grace=DAY))
    await server.put(b"a" * 1000)
    server.clock.time += DAY + 1
    assert await server.take(b"b" * 1500) == 201
    assert await server.take(b"c" * 1600) == 507
    assert server.has(b"a" * 1000)
    assert await server.take(b"c" * 1500) == 201
    assert not server.has(b"a" * 1000)
    server.store.close()


async def test_what_is_the_nodes_own_too_is_not_its_uploaders_burden(tmp_path: Path) -> None:
    server = Server(tmp_path, BlobLimits(max_blob=20_000, quota=len(DATA)))
    assert (await server.put()).status_code == 201
    assert (await server.put(OTHER)).status_code == 429
    await server.store.claim(DIGEST, LOCAL)
    assert (await server.put(OTHER)).status_code == 201
    assert await server.store.usage(signer("alice").pubkey) == len(OTHER)
    assert await server.store.usage(LOCAL) == len(DATA)
    await server.store.discard(DIGEST, (LOCAL,))
    assert await server.store.usage(signer("alice").pubkey) == len(DATA) + len(OTHER)
    server.store.close()


async def test_uploads_side_by_side_count(tmp_path: Path) -> None:
    server = Kept(tmp_path, Retention(store=3000))
    await server.keeper.check_room(2000, coming=1000)
    with pytest.raises(Exception, match="2001 bytes wanted, 2000 free"):
        await server.keeper.check_room(2001, coming=1000)
    server.store.close()


async def test_a_full_disk_is_made_room_on_too(tmp_path: Path) -> None:
    server = Kept(tmp_path, Retention(store=1 << 40, grace=0))
    await server.put(OTHER)
    server.clock.time += 1
    lack = server.store.lack
    server.store.lack = lambda wanted: len(OTHER) if server.has(OTHER) else lack(wanted)  # type: ignore[method-assign]
    assert await server.take() == 201
    assert (server.has(DATA), server.has(OTHER)) == (True, False)
    server.store.close()


async def test_a_removal_that_is_cut_off_is_finished_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Kept(tmp_path, WEEK)
    await server.put()
    path = server.store.path(DIGEST)
    assert path is not None
    os.utime(path, (NOW, NOW))
    server.clock.time += 8 * DAY
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _fail)
        with pytest.raises(OSError, match="cut off"):
            await server.keeper.sweep()
    assert (await server.http.get(f"/{DIGEST}")).content == DATA
    server.reopen()
    assert await server.store.take_stock() == (1, 0)
    assert (await server.http.get(f"/{DIGEST}")).content == DATA  # as long as it is there it may be used, and stays
    assert await server.keeper.sweep() == 0
    server.clock.time += 8 * DAY
    assert await server.keeper.sweep() == 1
    assert server.files() == {}
    server.store.close()


def _fail(self: Path, missing_ok: bool = False) -> None:
    raise OSError("cut off")


async def test_a_file_that_somebody_removed_is_not_counted_any_more(tmp_path: Path) -> None:
    server = Kept(tmp_path, WEEK)
    await server.put()
    path = server.store.path(DIGEST)
    assert path is not None
    path.unlink()
    assert await server.store.take_stock() == (0, 1)
    assert await server.store.usage(signer("alice").pubkey) == await server.store.total() == 0
    assert await server.take() == 201
    server.store.close()


async def test_uses_are_written_down_and_survive_a_restart(tmp_path: Path) -> None:
    server = Kept(tmp_path, Retention(store=1 << 40))
    await server.put()
    server.clock.time += 5
    await server.http.get(f"/{DIGEST}")
    await server.keeper.sweep()
    server.reopen()
    assert await server.store.last_use(DIGEST, ()) == NOW + 5
    server.store.close()


async def test_a_download_goes_on_while_its_blob_is_removed(tmp_path: Path) -> None:
    server = Kept(tmp_path, WEEK)
    data = os.urandom(3 * STEP)
    await server.put(data)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)
        if len(sent) == 2:
            server.clock.time += 8 * DAY
            assert await server.keeper.sweep() == 1

    scope = {"type": "http", "method": "GET", "path": f"/{sha256_hex(data)}", "query_string": b"", "headers": [], "server": ("h", 1)}
    await server.app(scope, trio.sleep_forever, send)
    assert b"".join(message.get("body", b"") for message in sent) == data
    assert server.files() == {}
    server.store.close()


async def test_sunset_tells_when_it_will_be_gone(tmp_path: Path) -> None:
    server = Kept(tmp_path, Retention(idle=DAY, keep=frozenset({LOCAL})))
    await server.put()
    server.clock.time += 100
    head = await server.http.head(f"/{DIGEST}")
    assert parsedate_to_datetime(head.headers["sunset"]).timestamp() == NOW + DAY
    got = await server.http.get(f"/{DIGEST}")
    assert parsedate_to_datetime(got.headers["sunset"]).timestamp() == NOW + 100 + DAY
    await server.store.claim(DIGEST, LOCAL)
    assert "sunset" not in (await server.http.head(f"/{DIGEST}")).headers
    server.store.close()


class Unlucky(Housekeeping):
    """Its first sweep meets a failing disk."""

    def __init__(self, store: BlobStore, clock: StillClock, fault: Exception) -> None:
        super().__init__(store, clock, WEEK)
        self.fault, self.sweeps, self.swept = fault, 0, trio.Event()

    async def sweep(self) -> int:
        self.sweeps += 1
        if self.sweeps == 1:
            raise self.fault
        count = await super().sweep()
        self.swept.set()
        return count


@pytest.mark.parametrize("fault", [OSError("the disk fails"), sqlite3.OperationalError("the disk fails"), StorageFull("the disk fails")])
async def test_a_failing_disk_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    monkeypatch.setattr(housekeeping, "SWEEP_S", 0.0)
    server = Kept(tmp_path, WEEK)
    await server.take()
    server.clock.time += 8 * DAY
    keeper = Unlucky(server.store, server.clock, fault)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await keeper.swept.wait()
        nursery.cancel_scope.cancel()
    assert "blobs cannot be tidied up now: the disk fails" in caplog.text
    assert not server.has(DATA)
    server.store.close()


async def test_an_index_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    server = Kept(tmp_path, WEEK)
    await server.put()
    await server.put(authorization=token("upload", DIGEST, who="bob"))
    server.store.close()
    index = sqlite3.connect(tmp_path / "store/index.sqlite")
    index.executescript("DROP TABLE blob; PRAGMA user_version = 1;")
    index.close()
    server.reopen()
    assert (await server.store.total(), await server.store.last_use(DIGEST, ())) == (len(DATA), NOW)
    assert len(await server.store.uploads(signer("bob").pubkey, None, 9)) == 1
    server.store.close()
