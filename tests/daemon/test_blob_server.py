"""A daemon that only serves blobs: with `blobs.follow` it knows the run that they belong to, without it nothing but its own rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio

from nostrain.blobs.auth import make_header
from nostrain.blobs.index import UploadIndex
from nostrain.blobs.store import LOCAL
from nostrain.config.load import load_config
from nostrain.core.identity import Identity
from nostrain.core.rows import Run
from nostrain.daemon.clock import SystemClock
from nostrain.daemon.compose import open_node
from nostrain.daemon.status import Node
from nostrain.hashes import sha256_hex
from nostrain.units import Digest
from tests.docs.examples import COORDINATOR, WORKERS, Examples, Party

FOLLOWS = f'relays = ["ws://127.0.0.1:9"]\n[join]\ncoordinator = "{COORDINATOR.pubkey}"\n[blobs]\nfollow = true\n'


@asynccontextmanager
async def serving(folder: Path, text: str) -> AsyncIterator[Node]:
    """The composed daemon."""
    path = folder / "nostraind.toml"
    path.write_text(f'name = "files"\ndata_dir = "{folder / "data"}"\nroles = ["blobs"]\n{text}')
    async with open_node(load_config(path, (), {})) as node, trio.open_nursery() as nursery:
        if node.runtime is not None:
            nursery.start_soon(node.runtime.run)
        yield node
        nursery.cancel_scope.cancel()


async def upload(node: Node, party: Party, data: bytes) -> httpx.Response:
    digest = Digest(sha256_hex(data))
    assert node.blobs_url is not None
    token = make_header(party.signer, verb="upload", digest=digest, host="127.0.0.1", now=SystemClock().now())
    async with httpx.AsyncClient() as client:
        return await client.put(f"{node.blobs_url}/upload", content=data, headers={"Authorization": token, "X-SHA-256": digest})


async def test_a_server_that_follows_takes_what_the_run_needs_and_pins_it(tmp_path: Path) -> None:
    examples = Examples()
    async with serving(tmp_path, FOLLOWS) as node:
        assert node.runtime is not None
        assert node.billboard is None
        dataset = await upload(node, COORDINATOR, b"a dataset")  # before its manifest is there
        early = await upload(node, WORKERS[0], b"a delta")
        assert (dataset.status_code, early.status_code) == (201, 403)
        assert "follows no run yet" in early.headers["x-reason"]
        for label, event in examples.events.items():
            if label.startswith("acknowledgement"):
                break
            await node.runtime.receive(event)
        while not isinstance(run := node.runtime.state.rows.get("run"), Run) or run.open is None:
            await node.runtime.changed.wait()
        identity = node.runtime.state.rows["node"]
        assert isinstance(identity, Identity)
        assert (identity.roles, identity.replicates) == ((), False)
        assert "replica" not in node.runtime.state.rows
        while (taken := await upload(node, WORKERS[0], b"a delta")).status_code == 403:
            await node.runtime.changed.wait()
        assert taken.status_code == 201
    index = UploadIndex(tmp_path / "data" / "blobs" / "index.sqlite")
    assert {upload.digest for upload in index.uploads(LOCAL, None, 9)} == {sha256_hex(b"a dataset"), sha256_hex(b"a delta")}
    index.close()


async def test_a_server_that_follows_nothing_leaves_blobs_to_those_who_stored_them(tmp_path: Path) -> None:
    async with serving(tmp_path, f'[join]\ncoordinator = "{COORDINATOR.pubkey}"\n[blobs.retention]\nidle_days = 7\n') as node:
        assert node.runtime is None
        taken = await upload(node, COORDINATOR, b"a dataset")
        assert taken.status_code == 201
        assert node.blobs_url is not None
        async with httpx.AsyncClient() as client:
            head = await client.head(f"{node.blobs_url}/{sha256_hex(b'a dataset')}")
        assert "sunset" in head.headers
    index = UploadIndex(tmp_path / "data" / "blobs" / "index.sqlite")
    assert index.uploads(LOCAL, None, 9) == []
    index.close()
