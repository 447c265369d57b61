"""The dataset manifest is a stranger's file: what is wrong with it is one line, whatever it is."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from nostrain.core.effects import DatasetRead, Failed, FetchDataset, Upload, Uploaded
from nostrain.daemon.runners import perform
from nostrain.errors import RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.protocol.dataset import DatasetManifest, Shard
from nostrain.protocol.manifest import BlobRef
from nostrain.units import Digest
from nostrain.wire.dataset import MAX_DATASET_BYTES, read_dataset_untrusted
from tests.daemon.world import make_ports

SOUND = DatasetManifest(
    shards=tuple(Shard(Digest(f"{index:064x}"), 4096, ("http://x/y",), tokens=2048, text_bytes=9000) for index in range(3)),
    validation=Shard(Digest("f" * 64), 512, tokens=256, text_bytes=1000),
    dtype="uint16",
    vocab_size=300,
    tokenizer=BlobRef(Digest("e" * 64), 777),
)
DATA = msgspec.json.encode(SOUND)


def test_a_sound_one_is_read() -> None:
    assert read_dataset_untrusted(DATA) == SOUND


def changed(**fields: Any) -> bytes:
    return json.dumps({**json.loads(DATA), **fields}).encode()


SHARD = json.loads(DATA)["shards"][0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        DATA[:-1],
        changed(shards=[]),
        changed(shards=None),
        changed(shards=[{**SHARD, "sha256": "../../etc/passwd"}]),
        changed(shards=[{**SHARD, "sha256": SHARD["sha256"].upper().replace("0", "A")}]),
        changed(shards=[{**SHARD, "size": 10 << 40}]),
        changed(shards=[{**SHARD, "size": -1}]),
        changed(shards=[{**SHARD, "size": 0}]),
        changed(shards=[{**SHARD, "size": 1.5}]),
        changed(shards=[SHARD] * 5000),
        changed(shards=[{**SHARD, "text_bytes": 10**400}]),
        changed(validation={**SHARD, "size": 1 << 70}),
        changed(validation={**SHARD, "urls": ["x" * 10_000]}),
        changed(tokenizer="bpe"),
        changed(dtype="uint8"),
        changed(dtype="float32"),
        changed(vocab_size=256),
        changed(vocab_size=1 << 40),
        changed(separator=300),
        changed(separator=-1),
        changed(v=1),
        changed(v=3),
        changed(shards=[{**SHARD, "tokens": 4096}]),
        changed(shards=[{**SHARD, "text_bytes": 0}]),
        changed(tokenizer={"sha256": "x", "size": 1}),
    ],
)
def test_what_is_wrong_is_one_line(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        read_dataset_untrusted(data)
    assert "\n" not in str(caught.value)


@given(seed=st.integers(0, 1 << 30))
def test_mutated_bytes_raise_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(DATA)
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    try:
        found = read_dataset_untrusted(bytes(data))
    except RemoteProtocolError:
        return
    assert found.shards


async def test_one_that_is_too_large_is_not_even_fetched(tmp_path: Path, autojump_clock: MockClock) -> None:
    effect = FetchDataset(owner="replica", name="dataset", blob=BlobRef(Digest("a" * 64), 10 << 30, ("http://blobs.test/x",)))
    outcome = await perform(effect, make_ports(tmp_path))
    assert isinstance(outcome, Failed)
    assert str(MAX_DATASET_BYTES) in outcome.reason


@pytest.mark.parametrize(("data", "good"), [(DATA, True), (DATA[:-5], False)])
async def test_the_digest_decides_so_nonsense_is_final(tmp_path: Path, data: bytes, good: bool, autojump_clock: MockClock) -> None:
    """Asking other sources for the same digest could only bring the same nonsense."""
    ports = make_ports(tmp_path)
    path = tmp_path / "dataset.json"
    path.write_bytes(data)
    blob = BlobRef(Digest(sha256_hex(data)), len(data))
    uploaded = await perform(Upload(owner="preparation", name="upload", blob=blob, path=str(path), servers=()), ports)
    assert isinstance(uploaded, Uploaded)
    outcome = await perform(FetchDataset(owner="replica", name="dataset", blob=msgspec.structs.replace(blob, urls=uploaded.urls)), ports)
    assert outcome == DatasetRead(SOUND) if good else isinstance(outcome, Failed)
