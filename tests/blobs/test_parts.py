"""Downloads that are taken up again after a restart: parts that are the beginning of the blob, parts that are not, and how many are kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nostrain.blobs.client import BlossomClient
from nostrain.blobs.incoming import STEP, StorageFull
from nostrain.blobs.parts import PartLimits
from nostrain.blobs.store import BlobStore
from nostrain.blobs.tuning import Tuning
from nostrain.errors import Unavailable
from nostrain.hashes import sha256_hex
from nostrain.units import Digest

from .blossom_world import NOW, StillClock, signer
from .scripted import Request, Script, Scripted, World, reply

BIG = bytes(range(256)) * (3 * STEP // 256)
NAME = Digest(sha256_hex(BIG))
CUT = 2 * STEP + 5000
ONCE = Tuning(attempts=1, backoff=0.001)


def serving(cut: int | None = None) -> Script:
    """BIG as it is asked for, as RFC 9110 has it; `cut` off after so many bytes."""

    async def script(request: Request, stream: trio.SocketStream) -> None:
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        headers = f"Content-Range: bytes {start}-{len(BIG) - 1}/{len(BIG)}\r\n"
        if start >= len(BIG):
            await reply("416 Range Not Satisfiable")(request, stream)
        else:
            await reply("206 Partial Content" if start else "200 OK", BIG[start:], sent=cut, headers=headers if start else "")(
                request, stream
            )

    return script


class Restarting(World):
    """A world whose client can be started anew."""

    @property
    def part(self) -> Path:
        return self.folder / "store/parts" / NAME

    async def fetch(self, *servers: Scripted, limit: int = len(BIG)) -> Path:
        """By a client of its own, on a store that was opened anew."""
        self.store.close()
        self.store = BlobStore(self.folder / "store", StillClock(), reserve=0)
        async with BlossomClient(self.store, [], signer("alice"), StillClock(), tuning=ONCE) as client:
            self.client_used = client
            return await client.get(NAME, [f"{server.url}/{NAME}" for server in servers], limit)

    def left(self, data: bytes) -> None:
        """What an earlier process left behind."""
        self.part.write_bytes(data)
        os.utime(self.part, (NOW, NOW))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[Restarting]:
    async with trio.open_nursery() as nursery:
        world = Restarting(tmp_path, nursery)
        yield world
        nursery.cancel_scope.cancel()
    world.store.close()


async def test_a_download_goes_on_after_a_restart(world: Restarting) -> None:
    server = await world.server(serving(CUT), reply("503 Gone"), serving())
    with pytest.raises(Unavailable):
        await world.fetch(server)
    kept = world.part.stat().st_size
    assert STEP <= kept <= CUT
    assert (await world.fetch(server)).read_bytes() == BIG
    assert server.requests[-1].headers["range"] == f"bytes={kept}-"
    assert not world.part.exists()


async def test_another_server_may_have_the_rest(world: Restarting) -> None:
    world.left(BIG[:CUT])
    server = await world.server(serving())
    assert (await world.fetch(server)).read_bytes() == BIG
    assert [request.headers["range"] for request in server.requests] == [f"bytes={CUT}-"]


async def test_a_server_without_ranges_sends_it_all(world: Restarting) -> None:
    world.left(BIG[:CUT])
    server = await world.server(reply("200 OK", BIG))
    assert (await world.fetch(server)).read_bytes() == BIG
    assert len(server.requests) == 1


async def test_a_part_that_is_whole_needs_no_server(world: Restarting) -> None:
    world.left(BIG)
    assert (await world.fetch()).read_bytes() == BIG
    assert not world.part.exists()


@pytest.mark.parametrize(
    "left",
    [
        bytes(CUT),
        BIG[: CUT - 1] + b"x",
        bytes(len(BIG)),
        BIG[:-1] + b"x",
    ],
    ids=["zeros", "last byte", "zeros to the end", "the very last byte"],
)
async def test_a_damaged_part_is_thrown_away_and_nobody_is_blamed(world: Restarting, left: bytes) -> None:
    world.left(left)
    server = await world.server(serving())
    assert (await world.fetch(server)).read_bytes() == BIG
    assert not world.part.exists()
    assert not world.client_used._means.scores.benched(server.url)
    assert "range" not in server.requests[-1].headers


async def test_a_damaged_part_is_not_kept_when_nobody_can_send_the_rest_again(world: Restarting) -> None:
    world.left(bytes(CUT))
    server = await world.server(serving(), reply("503 Gone"))
    with pytest.raises(Unavailable):
        await world.fetch(server)
    assert not world.part.exists()


async def test_more_than_is_wanted_is_not_taken_up(world: Restarting) -> None:
    world.left(BIG + b"more")
    server = await world.server(serving())
    assert (await world.fetch(server)).read_bytes() == BIG
    assert "range" not in server.requests[0].headers


async def test_a_liar_that_goes_on_from_an_honest_part_is_found(world: Restarting) -> None:
    world.left(BIG[:CUT])
    rest = f"Content-Range: bytes {CUT}-{len(BIG) - 1}/{len(BIG)}\r\n"
    liar = await world.server(reply("206 Partial Content", bytes(len(BIG) - CUT), headers=rest), reply("503 Gone"))
    honest = await world.server(serving())
    assert (await world.fetch(liar, honest)).read_bytes() == BIG
    assert world.client_used._means.scores.benched(liar.url)
    assert not world.client_used._means.scores.benched(honest.url)


async def test_a_cancelled_download_goes_on(world: Restarting) -> None:
    sent = trio.Event()

    async def begin(request: Request, stream: trio.SocketStream) -> None:
        await stream.send_all(f"HTTP/1.1 200 OK\r\nContent-Length: {len(BIG)}\r\n\r\n".encode() + BIG[:CUT])
        sent.set()
        await stream.receive_some(1)

    server = await world.server(begin, serving())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.fetch, server)
        await sent.wait()
        while not (world.part.exists() and world.part.stat().st_size >= STEP):
            await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    assert (await world.fetch(server)).read_bytes() == BIG
    assert int(server.requests[-1].headers["range"].removeprefix("bytes=").removesuffix("-")) >= STEP


async def test_a_part_is_one_downloads_at_a_time(world: Restarting) -> None:
    world.left(BIG[:CUT])
    async with world.store.incoming(len(BIG), resume=NAME) as first, world.store.incoming(len(BIG), resume=NAME) as second:
        assert (first.size, second.size) == (CUT, 0)
        await second.write(BIG)
        assert await world.store.commit(second, NAME)
    assert world.part.stat().st_size == CUT


# --- what is kept ---------------------------------------------------------------------------------------------------------


def named(letter: str) -> str:
    return letter * 64


def parts(folder: Path) -> set[str]:
    return {path.name for path in (folder / "store/parts").iterdir()}


def lay(folder: Path, **sizes: int) -> None:
    """Parts named by letters, each last written a day after the one before."""
    (folder / "store/parts").mkdir(parents=True, exist_ok=True)
    for day, (letter, size) in enumerate(sizes.items()):
        path = folder / "store/parts" / named(letter)
        path.write_bytes(bytes(size))
        os.utime(path, (NOW + day * 86_400,) * 2)


def opened(folder: Path, days: int, limits: PartLimits | None = None) -> BlobStore:
    return BlobStore(folder / "store", StillClock(NOW + days * 86_400), reserve=0, parts=limits)


def test_parts_are_kept_for_three_days(tmp_path: Path) -> None:
    lay(tmp_path, a=10, b=10, c=10)
    (tmp_path / "store/parts/notes.txt").write_text("not ours")
    opened(tmp_path, 4).close()
    assert parts(tmp_path) == {named("b"), named("c")}


def test_the_oldest_go_when_they_are_too_much(tmp_path: Path) -> None:
    lay(tmp_path, a=10, b=10, c=10)
    opened(tmp_path, 2, PartLimits(total=20)).close()
    assert parts(tmp_path) == {named("b"), named("c")}


class Usage(NamedTuple):
    total: int
    used: int
    free: int


async def test_parts_make_way_for_what_needs_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path, a=10, b=10, c=10)
    store = opened(tmp_path, 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000, 0, 100 + 10 * (3 - len(parts(tmp_path)))))
    async with store.incoming(1000, resume=Digest(named("a"))) as taken, store.incoming(1000) as other:
        other.expect(105)
        assert parts(tmp_path) == {named("a"), named("c")}
        with pytest.raises(StorageFull):
            taken.expect(50)
    assert parts(tmp_path) == set()
    store.close()


async def test_a_full_disk_leaves_no_part(world: Restarting, monkeypatch: pytest.MonkeyPatch) -> None:
    world.left(BIG[:CUT])
    server = await world.server(serving())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(1000, 0, 100))
    with pytest.raises(StorageFull):
        await world.fetch(server)
    assert not world.part.exists()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(0, len(BIG) + 10), wrong=st.none() | st.integers(0, len(BIG)))
def test_whatever_was_left_the_blob_is_right(tmp_path_factory: pytest.TempPathFactory, size: int, wrong: int | None) -> None:
    async def scenario() -> None:
        async with trio.open_nursery() as nursery:
            world = Restarting(tmp_path_factory.mktemp("w"), nursery)
            data = bytearray((BIG + bytes(10))[:size])
            if wrong is not None and wrong < size:
                data[wrong] ^= 1
            world.left(bytes(data))
            assert (await world.fetch(await world.server(serving()))).read_bytes() == BIG
            assert not world.part.exists()
            nursery.cancel_scope.cancel()
        world.store.close()

    trio.run(scenario)
