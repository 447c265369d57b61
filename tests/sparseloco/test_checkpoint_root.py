"""The root of a checkpoint that somebody else wrote, read block by block: as if it had been read whole, in a fraction of the memory."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.manifest import TensorSpec
from nostrain.sparseloco import checkpoint
from nostrain.sparseloco.checkpoint import checkpoint_root_untrusted, load_checkpoint_untrusted, merkle_root, write_checkpoint

from .samples import TENSORS, random_values

LARGE = (TensorSpec("a", (1000, 1537)), TensorSpec("b", (3,)), TensorSpec("c", (2049, 2047)))
"""23 MB: no tensor ends where a block does."""


def whole(path: Path) -> str:
    try:
        return merkle_root(TENSORS, load_checkpoint_untrusted(path, TENSORS))
    except RemoteProtocolError as error:
        return str(error)


def in_blocks(path: Path) -> str:
    try:
        return checkpoint_root_untrusted(path, TENSORS)
    except RemoteProtocolError as error:
        return str(error)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), block=st.integers(1, 200).map(lambda values: 4 * values))
def test_any_file_has_the_answer_that_it_has_when_read_whole(tmp_path: Path, data: st.DataObject, block: int) -> None:
    write_checkpoint(tmp_path / "one", TENSORS, random_values(1))
    blob = bytearray((tmp_path / "one").read_bytes())
    del blob[data.draw(st.integers(0, len(blob))) :]
    if blob:
        at = data.draw(st.integers(0, len(blob) - 1))
        blob[at : at + 4] = data.draw(st.sampled_from([blob[at : at + 4], b"\0\0\x80\x7f", b"\0\0\xc0\xff", b"\1\2\3\4"]))
    (tmp_path / "bad").write_bytes(blob)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_BLOCK_BYTES", block)
        assert in_blocks(tmp_path / "one") == whole(tmp_path / "one") == merkle_root(TENSORS, random_values(1))
        assert in_blocks(tmp_path / "bad") == whole(tmp_path / "bad")


def test_it_takes_a_few_blocks_of_memory_whatever_the_file_has(tmp_path: Path) -> None:
    flat = np.random.default_rng(1).standard_normal(1000 * 1537 + 3 + 2049 * 2047, np.float32)
    write_checkpoint(tmp_path / "large", LARGE, flat)
    tracemalloc.start()
    try:
        root = checkpoint_root_untrusted(tmp_path / "large", LARGE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert root == merkle_root(LARGE, flat)
    assert peak < 3 * checkpoint._BLOCK_BYTES < flat.nbytes / 1.8


def test_a_file_that_shrinks_while_it_is_read_is_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "one", LARGE, np.zeros(1000 * 1537 + 3 + 2049 * 2047, np.float32))
    check, size = checkpoint._check_untrusted, os.path.getsize(tmp_path / "one")

    def check_and_shrink(file: object, tensors: object) -> None:
        check(file, tensors)  # type: ignore[arg-type]
        os.truncate(tmp_path / "one", size - 5)

    monkeypatch.setattr(checkpoint, "_check_untrusted", check_and_shrink)
    with pytest.raises(OSError, match="ended while it was read"):
        checkpoint_root_untrusted(tmp_path / "one", LARGE)
