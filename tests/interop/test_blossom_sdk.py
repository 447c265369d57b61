"""Blossom's own client library (blossom-client-sdk from npm) uploads to our server, lists, mirrors to another of ours, fetches and deletes there."""

from __future__ import annotations

import json
import os
from pathlib import Path

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
from tests.interop.test_nostr import PATIENCE_S, TOOLS, needs, node, run_client

DATA = os.urandom(30_000)


async def test_it_uploads_mirrors_lists_fetches_and_deletes(tmp_path: Path) -> None:
    command = node("blossom_sdk_client.mjs")
    needs((TOOLS / "node_modules" / "blossom-client-sdk").is_dir(), "blossom-client-sdk")
    digest = Digest(sha256_hex(DATA))
    stores = [BlobStore(tmp_path / name, SystemClock()) for name in ("first", "second")]
    with trio.fail_after(PATIENCE_S):
        async with connections(outbound(True, 4), Tuning()) as http, trio.open_nursery() as nursery:
            urls = [await nursery.start(serve, blossom_app(store, Policy(), SystemClock(), mirror=http), "127.0.0.1:0") for store in stores]
            told = await run_client((*command, *urls, DATA.hex()), TOOLS)
            nursery.cancel_scope.cancel()
    for name, url in (("uploaded", urls[0]), ("again", urls[0]), ("mirrored", urls[1])):
        assert (told[name]["sha256"], told[name]["size"], told[name]["url"].startswith(f"{url}/{digest}")) == (digest, len(DATA), True), (
            json.dumps(told)
        )
    assert [blob["sha256"] for blob in told["listed"]] == [digest]
    assert told["downloaded"] == DATA.hex()
    assert told["deleted"]
    assert told["left"] == [False, True]
    for store in stores:
        store.close()
