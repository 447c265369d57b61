"""Housekeeping against a model of it: whatever is uploaded, downloaded, swept and cut off, what is there is what the rules say."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.blobs.housekeeping import Housekeeping, Retention
from nostrain.blobs.incoming import StorageFull
from nostrain.blobs.store import LOCAL, BlobStore
from nostrain.hashes import sha256_hex
from nostrain.units import Digest, Pubkey

from .blossom_world import StillClock

IDLE, CAP, GRACE, SIZE = 90, 300, 15, 100
ALICE = Pubkey("a" * 64)
BLOBS = [bytes([n]) * SIZE for n in range(6)]
NAMES = [Digest(sha256_hex(data)) for data in BLOBS]
OTHERS = ["download", "pin", "unpin", "wait", "wait", "sweep", "cut off", "restart"]
ACTS = st.tuples(st.sampled_from(["upload"] * 6 + OTHERS), st.integers(0, 5))


class Model:
    """When each blob that is there was last used, and who has stored it."""

    def __init__(self) -> None:
        self.used: dict[int, int] = {}
        self.owners: dict[int, set[str]] = {}

    def idle(self, before: int) -> list[int]:
        free = [n for n in self.used if LOCAL not in self.owners[n] and self.used[n] < before]
        return sorted(free, key=lambda n: (self.used[n], NAMES[n]))

    def upload(self, number: int, now: int) -> bool:
        """Whether there is room, made if need be."""
        if number not in self.used:
            lack, idle = (len(self.used) + 1) * SIZE - CAP, self.idle(now - GRACE)
            if lack > len(idle) * SIZE:
                return False
            for gone in idle[: max(0, -(-lack // SIZE))]:
                del self.used[gone]
            self.owners[number] = set()
        self.used[number] = now
        self.owners[number].add(ALICE)
        return True

    def unpin(self, number: int) -> None:
        self.owners[number].discard(LOCAL)
        if not self.owners[number]:
            del self.used[number]

    def sweep(self, now: int) -> None:
        for gone in self.idle(now - IDLE):
            del self.used[gone]

    def cut_off(self, now: int) -> None:
        """Rows are gone, files are not: they belong to nobody, and count as used when they were written, which is now."""
        for left in self.idle(now - IDLE):
            self.used[left], self.owners[left] = now, set()


class Real:
    """The store, kept to the same rules."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, StillClock()
        self.open()

    def open(self) -> None:
        self.store = BlobStore(self.folder, self.clock, reserve=0)
        self.keeper = Housekeeping(self.store, self.clock, Retention(IDLE, CAP, GRACE, frozenset({LOCAL})))

    async def upload(self, number: int) -> bool:
        if await self.store.claim(NAMES[number], ALICE) is not None:
            return True
        try:
            await self.keeper.make_room(SIZE)
        except StorageFull:
            return False

        async def body() -> AsyncIterator[bytes]:
            yield BLOBS[number]

        return await self.store.put_stream(body(), NAMES[number], SIZE, ALICE)

    async def cut_off(self) -> None:
        """A sweep that ends between its rows and its files."""
        for name in NAMES:
            if (path := self.store.path(name)) is not None:
                os.utime(path, (self.clock.time, self.clock.time))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "unlink", _fail)
            try:
                await self.keeper.sweep()
            except OSError:
                pass
        await self.restart()

    async def restart(self) -> None:
        await self.store.note_uses()
        self.store.close()
        self.open()
        await self.store.take_stock()


def _fail(self: Path, missing_ok: bool = False) -> None:
    raise OSError("cut off")


async def act(real: Real, model: Model, what: str, number: int) -> None:
    now = real.clock.time
    there = number in model.used
    match what:
        case "upload":
            assert await real.upload(number) == model.upload(number, now)
        case "download" if there:
            real.store.touch(NAMES[number])
            model.used[number] = now
        case "pin" if there:
            await real.store.claim(NAMES[number], LOCAL)
            model.owners[number].add(LOCAL)
            model.used[number] = now
        case "unpin" if there and LOCAL in model.owners[number]:
            await real.store.delete(NAMES[number], LOCAL)
            model.unpin(number)
        case "wait":
            real.clock.time += 15 * number
        case "sweep":
            await real.keeper.sweep()
            model.sweep(now)
        case "cut off":
            await real.cut_off()
            model.cut_off(now)
        case "restart":
            await real.restart()


@settings(max_examples=20, deadline=None)
@given(st.lists(ACTS, min_size=8, max_size=25))
def test_what_is_there_is_what_the_rules_say(tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[str, int]]) -> None:
    async def scenario() -> None:
        real, model = Real(tmp_path_factory.mktemp("model")), Model()
        for what, number in acts:
            await act(real, model, what, number)
            there = {number for number, name in enumerate(NAMES) if real.store.path(name) is not None}
            assert there == model.used.keys(), what
            assert await real.store.total() == len(there) * SIZE
        alices = [number for number in model.used if ALICE in model.owners[number]]
        assert {upload.digest for upload in await real.store.uploads(ALICE, None, 9)} == {NAMES[number] for number in alices}
        real.store.close()

    trio.run(scenario)
