"""Inputs as people have them: byte order marks, UTF-16, NULs, damaged files, folders that may not be read. Nothing is left out quietly."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nostrain.learning.corpus.documents import documents, files
from nostrain.learning.corpus.errors import Complaints, CorpusError

BOM = "\N{ZERO WIDTH NO-BREAK SPACE}".encode()
NOBODY = 65534


def read(*paths: Path) -> tuple[list[bytes], list[str]]:
    """The documents, and what was said of others."""
    said: list[str] = []
    return list(documents(tuple(map(str, paths)), "text", Complaints(said.append))), said


def rows(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(BOM + rows("one", "two"))
    (tmp_path / "b.txt").write_bytes(BOM + b"three")
    (tmp_path / "c.txt").write_bytes(BOM)
    assert read(tmp_path) == ([b"one", b"two", b"three"], [])


def test_what_has_a_nul_is_left_out(tmp_path: Path) -> None:
    """In a dataset of bytes it would end the document; and it is what UTF-16 and programs look like."""
    (tmp_path / "a.jsonl").write_bytes(rows("one", "t\0wo"))
    (tmp_path / "b.txt").write_bytes(b"thr\0ee")
    (tmp_path / "c.txt").write_bytes("four ".encode("utf-16-le") * 30_000)
    (tmp_path / "d.jsonl").write_bytes(rows("five").decode().encode("utf-16"))
    found, said = read(tmp_path)
    assert found == [b"one"]
    assert said[:2] == [f"{tmp_path / 'a.jsonl'}:2: has a NUL; left out", f"{tmp_path / 'b.txt'}: has a NUL at byte 3; left out"]
    assert len(said) == 2 + 5 + 2


def test_a_nul_in_parquet_and_what_is_not_utf_8_there(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `data`): PARQUET IS NOT TESTED")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    texts = arrow.array([b"one", b"t\0wo", b"thr\xffee", b"four"])
    strings = arrow.Array.from_buffers(arrow.string(), len(texts), texts.buffers())
    parquet.write_table(arrow.table({"text": strings}), path)
    found, said = read(path)
    assert found == [b"one", b"four"]
    assert said == [f"{path}: row 2: has a NUL; left out", f"{path}: row 3: not UTF-8 at byte 3; left out"]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.zst", "a.jsonl.gz"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra `data`): PARQUET IS NOT TESTED")
    from pyarrow import parquet

    path, texts = tmp_path / name, [f"{number} {number * number} words" for number in range(3000)]
    if name.endswith(".parquet"):
        parquet.write_table(arrow.table({"text": texts}), path)
    else:
        with arrow.output_stream(str(path), compression="detect") as out:
            out.write(rows(*texts))
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    if name.endswith(".parquet"):
        content[middle : middle + 80] = bytes(byte ^ 0xFF for byte in content[middle : middle + 80])
    else:
        del content[middle:]
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=f"{name}: not readable"):
        read(path)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CorpusError) as refused:
        read(path)
    assert str(refused.value) == f"{path}: Permission denied"


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    """Not a smaller dataset. In a process of nobody's, where the tests run as root."""
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "closed").mkdir(mode=0)
    if os.geteuid() != 0:
        with pytest.raises(PermissionError, match="closed"):
            list(files((str(tmp_path),)))
        return
    for folder in (tmp_path, *tmp_path.parents):
        if folder.name.startswith("pytest-"):
            folder.chmod(0o755)
    code = f"import os; from nostrain.learning.corpus.documents import files; os.setuid({NOBODY}); print(list(files(({str(tmp_path)!r},))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0, done.stdout
    assert "PermissionError" in done.stderr
