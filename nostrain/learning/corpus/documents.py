"""Documents out of JSONL (also .gz, .zst), Parquet and text, one after the other: no file is ever held in memory as a whole.

A document is UTF-8 and not empty. A text file is one, or several if it is longer than `PIECE`, cut at line ends.
"""

from __future__ import annotations

import gzip
import os
import zlib
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from nostrain.learning.corpus.errors import Complaints, CorpusError

PIECE: Final = 1 << 16
"""Bytes of the longest document made from a text file."""
BLOCK: Final = 1 << 20
"""Bytes read at once."""
MAX_LINE: Final = 16 << 20
"""Bytes of the longest row of JSONL."""
PARQUET_ROWS: Final = 64

_JSONL: Final = (".jsonl", ".ndjson", ".json")
_PACKED: Final = {".gz": "gzip", ".zst": "zstd"}


def documents(inputs: tuple[str, ...], field: str, complaints: Complaints) -> Iterator[bytes]:
    """Every document of every input, in the order given; the files of a folder by name. What the name ends with decides how a file is read.

    Raises CorpusError when an input does not exist, cannot be read to its end, or lacks the column `field`; OSError when a folder cannot be read.
    """
    for path in files(inputs):
        try:
            yield from _documents_of(path, field, complaints)
        except (EOFError, OSError, zlib.error) as error:
            refused = error.strerror if isinstance(error, OSError) else None
            raise CorpusError(f"{path}: {refused or f'not readable to its end, is it cut short? {error}'}") from error


def files(inputs: tuple[str, ...]) -> Iterator[Path]:
    """The files that the inputs name; folders with everything under them but hidden files. Raises CorpusError; OSError for a folder that cannot be read."""
    for name in inputs:
        root = Path(name)
        if root.is_file():
            yield root
        elif root.is_dir():
            yield from sorted(_beneath(root))
        else:
            raise CorpusError(f"{root}: no such file or folder")


def _beneath(root: Path) -> Iterator[Path]:
    """As `Path.rglob`, which passes over folders that it may not read."""

    def refuse(error: OSError) -> None:
        raise error

    for folder, inner, names in os.walk(root, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield from (path for name in names if not name.startswith(".") and (path := Path(folder, name)).is_file())


def _documents_of(path: Path, field: str, complaints: Complaints) -> Iterator[bytes]:
    packing = _PACKED.get(path.suffix)
    kind = path.with_suffix("").suffix if packing else path.suffix
    if kind == ".parquet":
        return _parquet(path, field, complaints)
    return _rows(path, packing, field, complaints) if kind in _JSONL else _text(path, packing, complaints)


def _open(path: Path, packing: str | None) -> BinaryIO:
    if packing == "gzip":
        return gzip.open(path)  # type: ignore[return-value]
    if packing == "zstd":
        stream: BinaryIO = _arrow(path).input_stream(str(path), compression="zstd")
        return stream
    return path.open("rb")


def _arrow(path: Path) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise CorpusError(f"{path}: reading it needs pyarrow; nostraind's extra data brings it") from None
    return pyarrow


def _rows(path: Path, packing: str | None, field: str, complaints: Complaints) -> Iterator[bytes]:
    row = msgspec.defstruct("Row", [("text", str)], rename={"text": field})
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(row).decode
    with closing(_open(path, packing)) as file:
        for number, line in enumerate(_lines(file), 1):
            if line is None:
                complaints.bad(f"{path}:{number}", f"a row of more than {MAX_LINE} bytes")
            elif line.strip():
                try:
                    text = decode(line).text.encode()
                except (msgspec.DecodeError, UnicodeError) as error:
                    complaints.bad(f"{path}:{number}", str(error))
                    continue
                if fault := _fault(text, field):
                    complaints.bad(f"{path}:{number}", fault)
                else:
                    yield text


def _fault(text: bytes, field: str) -> str | None:
    """Why that is no document, or None. A byte of 0 separates documents, and is what UTF-16 and programs look like when read as UTF-8."""
    return f"`{field}` is empty" if not text else "has a NUL" if b"\0" in text else None


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    """The file, some bytes at a time, without the byte order mark that it may begin with."""
    block = file.read(BLOCK)
    while 0 < len(block) <= len(BOM_UTF8) and (more := file.read(BLOCK)):
        block += more
    block = block.removeprefix(BOM_UTF8)
    while block:
        yield block
        block = file.read(BLOCK)


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines; None for one that is too long, of which nothing more is kept."""
    buffered, tail = b"", False
    for block in _blocks(file):
        *whole, rest = (buffered + block).split(b"\n")
        for line in whole:
            yield None if tail or len(line) > MAX_LINE else line
            tail = False
        tail = tail or len(rest) > MAX_LINE
        buffered = b"" if tail else rest
    if buffered or tail:
        yield None if tail else buffered


def _text(path: Path, packing: str | None, complaints: Complaints) -> Iterator[bytes]:
    at = 0
    with closing(_open(path, packing)) as file:
        for piece in _pieces(file):
            try:
                piece.decode()
            except UnicodeDecodeError as error:
                complaints.bad(str(path), f"not UTF-8 at byte {at + error.start}")
            else:
                if (nul := piece.find(0)) < 0:
                    yield piece
                else:
                    complaints.bad(str(path), f"has a NUL at byte {at + nul}")
            at += len(piece)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    rest = b""
    for block in _blocks(file):
        rest += block
        start = 0
        while len(rest) - start > PIECE:
            cut = rest.rfind(b"\n", start, start + PIECE) + 1 or _character_end(rest, start + PIECE)
            yield rest[start:cut]
            start = cut
        rest = rest[start:]
    if rest:
        yield rest


def _character_end(text: bytes, limit: int) -> int:
    """The last place up to `limit` that is not within a character of UTF-8."""
    return next((cut for cut in range(limit, limit - 4, -1) if text[cut] & 0xC0 != 0x80), limit)


def _parquet(path: Path, field: str, complaints: Complaints) -> Iterator[bytes]:
    """Memory: one row group's column, as its writer cut them."""
    arrow = _arrow(path)
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            column = next((one for one in file.schema_arrow if one.name == field), None)
            if column is None or not (arrow.types.is_string(column.type) or arrow.types.is_large_string(column.type)):
                has = ", ".join(f"{one.name} ({one.type})" for one in file.schema_arrow)
                raise CorpusError(f"{path}: no column `{field}` of text; it has {has}. Name another with --field")
            number = 0
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=[field]):
                for value in batch.column(0):
                    number += 1
                    try:
                        text = (value.as_py() or "").encode()
                    except UnicodeDecodeError as error:  # its writer need not have looked
                        complaints.bad(f"{path}: row {number}", f"not UTF-8 at byte {error.start}")
                        continue
                    if fault := _fault(text, field):
                        complaints.bad(f"{path}: row {number}", fault)
                    else:
                        yield text
    except (arrow.ArrowException, OSError) as error:
        raise CorpusError(f"{path}: not readable as Parquet: {error}") from error
