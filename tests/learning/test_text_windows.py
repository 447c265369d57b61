"""Shards and windows: the same bytes everywhere, from digests and seeds alone. No torch here."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.learning.data import assigned_sample, build_shards, cut, text_files, training_windows, unassigned_windows
from nostrain.learning.stream import choose, numbers
from nostrain.protocol.assignment import shard_index, window_seed
from nostrain.protocol.dataset import SEPARATOR, DatasetManifest
from nostrain.protocol.manifest import TrainingSpec
from nostrain.units import Digest

SEED = "ab" * 32
TRAINING = TrainingSpec(inner_steps=5, batch_size=3, sequence_length=16)


def make_text(folder: Path, files: int, size: int) -> None:
    for number in range(files):
        (folder / f"{number}.txt").write_bytes(bytes([65 + number]) * size)


def test_stream_is_sha256_in_counter_mode() -> None:
    first = hashlib.sha256(bytes.fromhex(SEED) + bytes(8)).digest()
    second = hashlib.sha256(bytes.fromhex(SEED) + (1).to_bytes(8, "big")).digest()
    drawn = [number for number, _ in zip(numbers(SEED), range(8), strict=False)]
    assert b"".join(number.to_bytes(8, "big") for number in drawn) == first + second


@given(st.integers(1, 50), st.integers(0, 60))
def test_choose_draws_different_numbers(population: int, count: int) -> None:
    chosen = choose(SEED, population, count)
    assert len(chosen) == len(set(chosen)) == min(count, population)
    assert set(chosen) <= set(range(population))


def test_shards_hold_every_byte_once(tmp_path: Path) -> None:
    make_text(tmp_path, files=5, size=1000)
    out = tmp_path / "out"
    out.mkdir()
    reference, manifest, blobs, total = build_shards(str(tmp_path), 3, 1500, 700, out)
    assert total == 5 * 1000 + 4 * 1
    assert [ref.size for ref in manifest.shards] == [1500, 1500]
    assert manifest.validation.size == 700
    for ref, path in blobs:
        assert hashlib.sha256(Path(path).read_bytes()).hexdigest() == ref.sha256
    assert blobs[-1][0] == reference
    assert msgspec.json.decode(Path(blobs[-1][1]).read_bytes(), type=DatasetManifest) == manifest
    joined = b"".join(Path(path).read_bytes() for _, path in blobs[:2])
    assert sorted(set(joined.split(bytes([SEPARATOR]))), key=len)[-1] in {bytes([65 + number]) * 1000 for number in range(5)}


def test_shards_depend_on_the_seed_only(tmp_path: Path) -> None:
    make_text(tmp_path, files=5, size=1000)
    manifests = []
    for at, seed in enumerate((3, 3, 4)):
        out = tmp_path.with_name(f"{tmp_path.name}-{at}")
        out.mkdir()
        manifests.append(build_shards(str(tmp_path), seed, 1500, 700, out)[1])
    assert manifests[0] == manifests[1] != manifests[2]


def test_too_little_text_says_how_much_is_needed(tmp_path: Path) -> None:
    make_text(tmp_path, files=1, size=1000)
    with pytest.raises(LocalProtocolError, match=r"1000 bytes of text in 1 files; two shards and validation need 1100"):
        build_shards(str(tmp_path), 3, 500, 100, tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalProtocolError, match="nowhere does not exist"):
        text_files(str(tmp_path / "nowhere"))


def test_the_standard_library_is_text_enough() -> None:
    named = text_files(None)
    assert sum(path.stat().st_size for _, path in named) > 10_000_000
    assert all(name.endswith(".py") and "site-packages" not in name for name, _ in named)
    assert named == sorted(named)


def test_training_windows_do_not_change() -> None:
    offsets = training_windows(SEED, 1000, TRAINING)
    assert offsets.tolist()[:4] == [832, 372, 579, 336]
    assert len(offsets) == 15
    assert offsets.max() + TRAINING.sequence_length < 1000


def test_assigned_sample_is_of_the_trained_windows() -> None:
    trained = set(training_windows(SEED, 100_000, TRAINING).tolist())
    one, two = (assigned_sample(seed, SEED, 100_000, TRAINING, 6).tolist() for seed in ("01" * 32, "02" * 32))
    assert len(one) == len(set(one)) == 6
    assert set(one) <= trained
    assert set(two) <= trained
    assert one != two


def test_unassigned_windows_fit_their_shards() -> None:
    pairs = unassigned_windows(SEED, [20, 400], 200, 16)
    assert {shard for shard, _ in pairs} == {0, 1}
    assert max(offset for shard, offset in pairs if shard == 0) == 3


@pytest.mark.parametrize("length", [0, 16])
def test_a_shard_shorter_than_a_window_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="shorter than one window of 16 tokens"):
        training_windows(SEED, length, TRAINING)
    with pytest.raises(RemoteProtocolError, match="shorter than one window of 16 tokens"):
        unassigned_windows(SEED, [100, length], 1, 16)


def test_cut_takes_one_token_more_for_the_last_target() -> None:
    windows = cut(np.arange(20, dtype=np.uint8), [0, 3], 4)
    assert windows.tolist() == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7]]
    assert windows.dtype == np.int64


def test_assignment_is_a_function_of_state_and_slot() -> None:
    state = Digest("11" * 32)
    assert [window_seed(state, slot)[:8] for slot in (0, 1)] == ["d8f1f4fd", "57da9745"]
    assert [shard_index(state, slot, 7) for slot in range(4)] == [0, 1, 2, 3]
