"""The canonical checkpoint: same values, same bytes; hostile files are refused before they are read."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.protocol.manifest import TensorSpec
from nostrain.sparseloco.checkpoint import (
    header_bytes,
    load_checkpoint_untrusted,
    map_checkpoint_untrusted,
    merkle_root,
    stream_checkpoint,
    write_bytes,
    write_checkpoint,
)

from .samples import SIZE, TENSORS, random_values


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    flat = random_values(1)
    one, two = write_checkpoint(tmp_path / "one", TENSORS, flat), write_checkpoint(tmp_path / "two", TENSORS, flat)
    assert one == two
    data = (tmp_path / "one").read_bytes()
    assert (one.sha256, one.size) == (sha256_hex(data), len(data))
    assert load_checkpoint_untrusted(tmp_path / "one", TENSORS).tobytes() == flat.tobytes()
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_safetensors_reads_it(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    flat = random_values(1)
    write_checkpoint(tmp_path / "one", TENSORS, flat)
    tensors = load_file(tmp_path / "one")
    assert {name: values.shape for name, values in tensors.items()} == {tensor.name: tensor.shape for tensor in TENSORS}
    assert np.concatenate([tensors[tensor.name].ravel() for tensor in TENSORS]).tobytes() == flat.tobytes()


def test_header_is_the_documented_one() -> None:
    header = header_bytes(TENSORS[:2])
    fields = json.loads(header[8:])
    assert len(header) % 8 == 0
    assert fields["__metadata__"] == {"format": "pt"}
    assert fields["b.norm"] == {"dtype": "F32", "shape": [7], "data_offsets": [600, 628]}


@pytest.mark.parametrize("promised", [10_000_000_000, 2**64 - 1, 0, 100])
def test_a_header_that_promises_much_is_refused_unread(tmp_path: Path, promised: int) -> None:
    (tmp_path / "bomb").write_bytes(promised.to_bytes(8, "little") + b"{}")
    with pytest.raises(RemoteProtocolError, match=f"promises {promised} bytes"):
        load_checkpoint_untrusted(tmp_path / "bomb", TENSORS)


def test_a_large_sparse_file_is_refused_unread(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "one", TENSORS, random_values(1))
    os.truncate(tmp_path / "one", 10_000_000_000)
    with pytest.raises(RemoteProtocolError, match="bytes of data"):
        load_checkpoint_untrusted(tmp_path / "one", TENSORS)


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "one", TENSORS, random_values(1))
    renamed = (TensorSpec("A.weight", (5, 30)), *TENSORS[1:])
    with pytest.raises(RemoteProtocolError, match="does not list this run's tensors"):
        load_checkpoint_untrusted(tmp_path / "one", renamed)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_refused(tmp_path: Path, value: float) -> None:
    flat = random_values(1)
    flat[17] = value
    with pytest.raises(LocalProtocolError, match="finite"):
        write_checkpoint(tmp_path / "one", TENSORS, flat)
    write_bytes(tmp_path / "one", header_bytes(TENSORS), flat.tobytes())
    with pytest.raises(RemoteProtocolError, match="not finite"):
        load_checkpoint_untrusted(tmp_path / "one", TENSORS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_files_raise_one_error(tmp_path: Path, data: st.DataObject) -> None:
    write_checkpoint(tmp_path / "one", TENSORS, random_values(1))
    blob = bytearray((tmp_path / "one").read_bytes())
    del blob[data.draw(st.integers(0, len(blob))) :]
    if blob:
        blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "bad").write_bytes(blob)
    try:
        root = str(merkle_root(TENSORS, load_checkpoint_untrusted(tmp_path / "bad", TENSORS)))
    except RemoteProtocolError as error:
        root = str(error)
    assert root != merkle_root(TENSORS, random_values(1))
    assert "\n" not in root


def test_root_binds_names_shapes_and_values() -> None:
    flat = random_values(1)
    changed = flat.copy()
    changed[-1] += 1
    roots = {
        merkle_root(TENSORS, flat),
        merkle_root(TENSORS, changed),
        merkle_root((TensorSpec("A.weight", (5, 30)), *TENSORS[1:]), flat),
        merkle_root((TensorSpec("a.weight", (30, 5)), *TENSORS[1:]), flat),
        merkle_root(TENSORS[:3], flat[: SIZE - 128]),
    }
    assert len(roots) == 5


def test_golden_root() -> None:
    """A checkpoint's identity does not change between releases."""
    assert merkle_root(TENSORS, np.arange(SIZE, dtype=np.float32)) == "ab3f10142814ef5cbc106916ee3f7eeeabceae6e2e9721ca5ec1bb690f6f1be3"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "one", TENSORS, random_values(1))
    before = (tmp_path / "one").read_bytes()

    def full_disk(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(tmp_path / "one", b"half")
    assert (tmp_path / "one").read_bytes() == before
    assert os.listdir(tmp_path) == ["one"]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, SIZE), max_size=9))
def test_streamed_in_parts_it_is_the_same_file_and_root(tmp_path: Path, cuts: list[int]) -> None:
    flat = random_values(3)
    blob, root = stream_checkpoint(tmp_path / "streamed", TENSORS, iter(np.split(flat, sorted(cuts))))
    assert blob == write_checkpoint(tmp_path / "written", TENSORS, flat)
    assert (tmp_path / "streamed").read_bytes() == (tmp_path / "written").read_bytes()
    assert root == merkle_root(TENSORS, flat)


@pytest.mark.parametrize(("count", "last", "reason"), [(-1, 0.5, "fewer"), (1, 0.5, "more"), (0, np.nan, "finite"), (0, np.inf, "finite")])
def test_parts_that_are_no_checkpoint_leave_no_file(tmp_path: Path, count: int, last: float, reason: str) -> None:
    flat = np.zeros(SIZE + count, np.float32)
    flat[-1] = last
    with pytest.raises(LocalProtocolError, match=reason):
        stream_checkpoint(tmp_path / "streamed", TENSORS, np.split(flat, [100]))
    assert list(tmp_path.iterdir()) == []


def test_mapped_it_is_the_same_vector_and_cannot_be_written(tmp_path: Path) -> None:
    flat = random_values(4)
    write_checkpoint(tmp_path / "one", TENSORS, flat)
    mapped = map_checkpoint_untrusted(tmp_path / "one", TENSORS)
    assert mapped.tobytes() == flat.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1
    with pytest.raises(RemoteProtocolError, match="header"):
        map_checkpoint_untrusted(tmp_path / "one", TENSORS[:-1])
    os.truncate(tmp_path / "one", (tmp_path / "one").stat().st_size - 4)
    with pytest.raises(RemoteProtocolError, match="bytes of data"):
        map_checkpoint_untrusted(tmp_path / "one", TENSORS)
