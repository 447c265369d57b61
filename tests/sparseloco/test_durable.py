"""Several files are replaced together: all are on the disk before one has its name, and a failure replaces none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from nostrain.sparseloco.durable import replace_files


def test_all_are_synced_before_one_is_renamed_and_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if os.fstat(descriptor).st_ino == tmp_path.stat().st_ino else "file")
        fsync(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        done.append(f"{target.name} there")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    replace_files((tmp_path / "one", [b"1", b"2"]), (tmp_path / "two", [b"3"]))
    assert done == ["file", "file", "one there", "two there", "folder"]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"one": b"12", "two": b"3"}


def test_the_second_is_written_while_the_first_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, fsync = Event(), os.fsync
    waited = iter([True])

    def synced(descriptor: int) -> None:
        if next(waited, False):
            assert written.wait(60)
        fsync(descriptor)

    def second() -> Iterator[bytes]:
        yield b"2"
        written.set()

    monkeypatch.setattr(os, "fsync", synced)
    replace_files((tmp_path / "one", [b"1"]), (tmp_path / "two", second()))
    assert (tmp_path / "two").read_bytes() == b"2"


@pytest.mark.parametrize("broken", ["writing", "syncing"])
def test_when_one_cannot_be_written_none_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(b"before")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    def second() -> Iterator[bytes]:
        yield b"2"
        if broken == "writing":
            full()

    if broken == "syncing":
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_files((tmp_path / "one", [b"1"]), (tmp_path / "two", second()))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"one": b"before", "two": b"before"}
