"""A blob server whose disk is full: 507 wherever it is noticed, nothing that was stored is touched, and it goes on when there is room."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from nostrain.blobs import incoming as incoming_module
from nostrain.blobs import store as store_module
from nostrain.hashes import sha256_hex

from .blossom_world import DATA, DIGEST, Server, reason, signer

BEFORE = b"was here before"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.store.close()


def full(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.ENOSPC, "No space left on device")


def without_new_files(real: Callable[..., int]) -> Callable[..., int]:
    return lambda path, flags, *mode: full() if flags & os.O_CREAT else real(path, flags, *mode)


STEPS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "create": lambda patched: patched.setattr(os, "open", without_new_files(os.open)),
    "write": lambda patched: patched.setattr(incoming_module, "write_all", full),
    "fsync": lambda patched: patched.setattr(os, "fsync", full),
    "folder": lambda patched: patched.setattr(Path, "mkdir", full),
    "rename": lambda patched: patched.setattr(Path, "replace", full),
    "fsync of the folder": lambda patched: patched.setattr(store_module, "fsync_folder", full),
}


async def listed(server: Server) -> list[str]:
    return [blob["sha256"] for blob in (await server.http.get(f"/list/{signer('alice').pubkey}")).json()]


@pytest.mark.parametrize("step", STEPS)
async def test_every_step_of_an_upload_may_find_the_disk_full(server: Server, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    before = sha256_hex(BEFORE)
    await server.put(BEFORE)
    with monkeypatch.context() as patched:
        STEPS[step](patched)
        response = await server.put()
        assert (await server.http.get(f"/{before}")).content == BEFORE
    assert response.status_code == 507
    assert "no space left" in reason(response)
    assert server.files() == {f"{before[:2]}/{before}": BEFORE}
    assert await listed(server) == [before]
    assert (await server.put()).status_code == 201
    assert (await server.http.get(f"/{DIGEST}")).content == DATA


async def test_the_index_may_find_the_disk_full(server: Server) -> None:
    """By SQLite's own limit: no page may be added to its file."""
    db = server.store._index._db
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages}")
    stored = []
    while (response := await server.put(data := b"blob %d" % len(stored))).status_code == 201:
        stored.append(sha256_hex(data))
    assert response.status_code == 507
    assert "index of blobs" in reason(response)
    assert set(server.files()) == {f"{digest[:2]}/{digest}" for digest in stored}
    assert sorted(await listed(server)) == sorted(stored)
    db.execute("PRAGMA max_page_count = 1000")
    assert (await server.put(data)).status_code == 201


def test_a_file_system_that_is_really_full() -> None:
    """A tmpfs of 4 MiB in a mount namespace of its own."""
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "tests.blobs.tiny_disk"]
    if subprocess.run([*command[:4], "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here, not even in a namespace")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["stored"] > 1
    assert told["refused"] == [507, True]
    assert told["intact"] == told["listed"] == told["stored"]
    assert told["deleted"] == 204
    assert told["afterwards"] == 201
