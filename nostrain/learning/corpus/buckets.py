"""The shuffle that needs no memory: documents go into 64 files by the hash of their text, and are read back file by file.

Within a shard the order does not matter, because windows are drawn at random; what matters is that a shard is a sample of the whole input. What
is held out is chosen by the hash too, so that no copy of a held-out document is trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from nostrain.learning.corpus.tokens import Tokens

BUCKETS: Final = 64
BINS: Final = 1 << 16
"""Parts of the hashes' range that are held out as a whole or not at all; a bucket has 1024."""
BUFFER: Final = 1 << 16
STEP: Final = 1 << 20
_ROWS: Final = 1 << 14
_COLUMNS: Final = 3


class Buckets:
    """Tokens in files in `folder`, and beside each of them three u64 a document: how many tokens, how many bytes of text (its separator is
    one), the bin of its hash.

    Add everything, `close`, `hold_out`; then read both sides, what is trained on first.
    """

    def __init__(self, folder: Path, seed: int, token_bytes: int) -> None:
        folder.mkdir()
        self._seed, self._token_bytes = f"{seed}/".encode(), token_bytes
        self._stack = ExitStack()
        names = [f"{number:02d}" for number in range(BUCKETS)]
        self._tokens_at, self._index_at = [folder / f"{name}.tokens" for name in names], [folder / f"{name}.index" for name in names]
        self._files = [self._writer(path) for path in self._tokens_at]
        self._indices = [self._writer(path) for path in self._index_at]
        self._in_bin = np.zeros(BINS, np.int64)
        self._first_held = BINS
        self.documents = self.text_bytes = 0

    def _writer(self, path: Path) -> BinaryIO:
        return self._stack.enter_context(path.open("xb", buffering=BUFFER))

    def add(self, document: bytes, tokens: Tokens) -> None:
        """Put away one document. Raises OSError when the disk is full."""
        place = int.from_bytes(hashlib.sha256(self._seed + document).digest()[:2], "big")
        bucket = place * BUCKETS // BINS
        self._files[bucket].write(tokens.data)
        self._indices[bucket].write(np.array([len(tokens), len(document) + 1, place], "<u8").data)
        self._in_bin[place] += len(tokens)
        self.documents += 1
        self.text_bytes += len(document) + 1

    def close(self) -> None:
        """Write out what is buffered. Raises OSError."""
        self._stack.close()

    def hold_out(self, tokens: int) -> tuple[int, int]:
        """Hold out the last bins that have at least `tokens` together; how many tokens are left to train on, and held out."""
        from_end = np.cumsum(self._in_bin[::-1])
        self._first_held = BINS - 1 - int(np.searchsorted(from_end, tokens))
        held = int(self._in_bin[max(0, self._first_held) :].sum())
        return int(self._in_bin.sum()) - held, held

    def text_before(self, positions: Sequence[int], *, held: bool) -> list[int]:
        """Bytes of text before each of the token positions of one side, which ascend; within a document in proportion, rounded down."""
        found: list[int] = []
        tokens = text = 0
        for path in self._index_at:
            for rows in _rows(path):
                mine = rows[(rows[:, 2] >= self._first_held) == held]
                if not len(mine):
                    continue
                ends, text_ends = tokens + np.cumsum(mine[:, 0]), text + np.cumsum(mine[:, 1])
                while len(found) < len(positions) and positions[len(found)] <= ends[-1]:
                    position = positions[len(found)]
                    at = int(np.searchsorted(ends, position))
                    count, size = int(mine[at, 0]), int(mine[at, 1])
                    found.append(int(text_ends[at]) - size + size * (position - int(ends[at]) + count) // count)
                tokens, text = int(ends[-1]), int(text_ends[-1])
        return found

    def stream(self, *, held: bool) -> Iterator[bytes]:
        """All tokens of one side, bucket by bucket, in pieces of at most STEP bytes, or a document's. A bucket that is trained on is removed."""
        split = self._first_held * BUCKETS // BINS
        for number, path in enumerate(self._tokens_at):
            if number == split:
                yield from self._documents(number, held=held)
            elif (number > split) == held:
                with path.open("rb") as file:
                    while piece := file.read(STEP):
                        yield piece
                path.unlink()

    def _documents(self, bucket: int, *, held: bool) -> Iterator[bytes]:
        """One side of the bucket that both have a part of."""
        with self._tokens_at[bucket].open("rb") as file:
            for rows in _rows(self._index_at[bucket]):
                for count, _, place in rows.tolist():
                    document = file.read(count * self._token_bytes)
                    if (place >= self._first_held) == held:
                        yield document


def _rows(path: Path) -> Iterator[NDArray[np.int64]]:
    """The index of a bucket, int64 [documents, 3], a part at a time."""
    with path.open("rb") as file:
        while len(rows := np.fromfile(file, "<u8", _COLUMNS * _ROWS)):
            yield rows.astype(np.int64).reshape(-1, _COLUMNS)


class Cutter:
    """Takes exact numbers of bytes off a stream of pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")

    def take(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, in pieces; they have to be there."""
        while size:
            if not self._rest:
                self._rest = memoryview(next(self._pieces))
            part, self._rest = self._rest[:size], self._rest[size:]
            size -= len(part)
            yield part
