"""Files on their way: what is written in the background is the same, and what goes wrong there is not lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.blobs import incoming as incoming_module
from nostrain.blobs.incoming import STEP, Incoming, StorageFull
from nostrain.hashes import sha256_hex

LIMIT = 4 * STEP


def opened(folder: Path) -> Incoming:
    return Incoming(folder / "file", LIMIT, lambda _: None)


def full(fd: int, data: bytes) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.one_of(st.integers(0, 100), st.just(STEP), st.integers(STEP - 2, STEP + 2)), max_size=3), looks=st.booleans())
def test_chunks_of_any_size(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], looks: bool) -> None:
    async def scenario() -> None:
        incoming = opened(tmp_path_factory.mktemp("incoming"))
        written = b""
        for number, size in enumerate(sizes):
            chunk = bytes([number + 1]) * size
            await incoming.write(chunk)
            written += chunk
            if looks:
                assert await incoming.so_far() == sha256_hex(written)
        assert await incoming.finish() == sha256_hex(written)
        assert (incoming.path.read_bytes(), incoming.size) == (written, len(written))
        incoming.close()

    trio.run(scenario)


@pytest.mark.parametrize("next_call", ["write", "so_far", "finish"])
async def test_a_disk_that_fills_up_behind_our_back_is_told_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, next_call: str
) -> None:
    incoming = opened(tmp_path)
    monkeypatch.setattr(incoming_module, "write_all", full)
    await incoming.write(bytes(STEP))
    with pytest.raises(StorageFull):
        await (incoming.write(bytes(STEP)) if next_call == "write" else getattr(incoming, next_call)())
    monkeypatch.undo()
    with pytest.raises(StorageFull):  # the file has a gap: it is of no use any more
        await incoming.finish()
    await incoming.restart()
    await incoming.write(b"again")
    assert await incoming.finish() == sha256_hex(b"again")
    incoming.close()


async def test_it_is_not_closed_under_the_thread_that_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incoming = opened(tmp_path)
    began, go_on, write_all = trio.Event(), False, incoming_module.write_all
    token = trio.lowlevel.current_trio_token()

    def slow(fd: int, data: bytearray) -> None:
        token.run_sync_soon(began.set)
        trio.from_thread.run(_until, lambda: go_on, trio_token=token)
        write_all(fd, data)

    monkeypatch.setattr(incoming_module, "write_all", slow)
    await incoming.write(bytes(STEP))
    await began.wait()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(incoming.settled)
        nursery.cancel_scope.cancel()
        go_on = True
    assert incoming.path.stat().st_size == STEP
    incoming.close()


async def _until(done: object) -> None:
    assert callable(done)
    while not done():
        await trio.lowlevel.checkpoint()
