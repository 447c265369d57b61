"""Where everything lies: the flat parameter vector and its chunks (SparseLoCo, arXiv:2508.15706, section 3; docs/protocol.md, section 8).

The tensors of the manifest, in manifest order and each in C order, concatenated, are *the flat vector* of a model. A tensor of two
dimensions is cut into square *tiles* of √chunk × √chunk, row by row of tiles; those at the right and lower edge are smaller where the
sides do not divide. Any other tensor is cut into *runs* of `chunk` values; the last may be shorter. Tiles and runs are the chunks. One of
n values keeps k = ceil(n · topk / chunk) of them: `topk` if it is full, at least one always.

The reference (templar's `ChunkingTransformer`) takes the largest divisor of a side that is at most 64 instead: a side that is prime then
makes one chunk of the whole side, or chunks of one value, and short tensors keep more than their share. Here no shape is special.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nostrain.errors import LocalProtocolError
from nostrain.protocol.manifest import CodecSpec, TensorSpec

MAX_CHUNK = 4096
"""A tile has at most 64 × 64 values."""

VERSION = 2
"""The container that this implementation writes and reads."""

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Grid:
    """A tensor as a matrix [rows, columns] at `offset` of the flat vector, cut into tiles of at most [height, width]; `chunk`: the first one."""

    offset: int
    rows: int
    columns: int
    height: int
    width: int
    chunk: int

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return -(-self.columns // self.width)


@dataclass(frozen=True, slots=True)
class Layout:
    """Chunks of a model under one codec. Arrays int64, one entry a chunk.

    `starts`: index of the first value; `lengths`, `widths`: values in all and in a row of the tile; `strides`: from one row to the next;
    `kept`: k; `first`: offset of its first kept value among all kept values.
    """

    size: int
    grids: tuple[Grid, ...]
    starts: Ints
    lengths: Ints
    widths: Ints
    strides: Ints
    kept: Ints
    first: Ints

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return len(self.starts)

    @property
    def values(self) -> int:
        """How many values a delta holds."""
        return int(self.first[-1] + self.kept[-1])

    def flat_indices(self, positions: NDArray[np.int32]) -> Ints:
        """Indices into the flat vector of positions inside the chunks (row by row), for every kept value."""
        widths = np.repeat(self.widths, self.kept)
        row, column = np.divmod(positions, widths)
        indices: Ints = np.repeat(self.starts, self.kept) + row * np.repeat(self.strides, self.kept) + column
        return indices


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive chunks `first` to before `last` that are, together, the values `begin` to before `end` of the flat vector."""

    begin: int
    end: int
    first: int
    last: int


def spans(layout: Layout, most: int) -> list[Span]:
    """The flat vector cut into spans of whole chunks, in order: of at most `most` values, or else of one row of tiles."""
    found: list[Span] = []
    for grid in layout.grids:
        run = grid.rows == 1  # its tiles lie one after the other
        values, chunks = (grid.width, 1) if run else (grid.height * grid.columns, grid.across)
        at_once, size = max(1, most // values), grid.rows * grid.columns
        for at in range(0, -(-size // values), at_once):
            begin, first = grid.offset + at * values, grid.chunk + at * chunks
            end, last = min(begin + at_once * values, grid.offset + size), first + at_once * chunks
            if end == grid.offset + size:
                last = grid.chunk + grid.across * -(-grid.rows // grid.height)
            if found and end - found[-1].begin <= most:
                found[-1] = Span(found[-1].begin, end, found[-1].first, last)
            else:
                found.append(Span(begin, end, first, last))
    return found


def tensor_sizes(tensors: Sequence[TensorSpec]) -> list[int]:
    """Number of values in each tensor, in manifest order.

    Raises:
        LocalProtocolError: there is no tensor, or one is empty.
    """
    sizes = [math.prod(tensor.shape) for tensor in tensors]
    if not sizes or min(sizes) < 1:
        raise LocalProtocolError("a model needs at least one tensor, and no empty one")
    return sizes


def check_codec(codec: CodecSpec) -> None:
    """Refuse a codec that this version cannot write.

    Raises:
        LocalProtocolError: the version, chunk, top-k or number of bits is not one of version 2.
    """
    if codec.version != VERSION or codec.quantizer_bits not in (1, 2):
        raise LocalProtocolError(f"codec version {codec.version} with {codec.quantizer_bits} bits is not supported")
    if not 1 <= codec.topk <= codec.chunk <= MAX_CHUNK or math.isqrt(codec.chunk) ** 2 != codec.chunk:
        raise LocalProtocolError(
            f"codec keeps {codec.topk} of {codec.chunk} values; 1 ≤ topk ≤ chunk ≤ {MAX_CHUNK}, chunk a square, is required"
        )


def plan(tensors: Sequence[TensorSpec], codec: CodecSpec) -> Layout:
    """The layout of `tensors` under `codec` (cached: it depends on the manifest alone).

    Raises:
        LocalProtocolError: the manifest's tensors or codec cannot be used.
    """
    tensor_sizes(tensors)
    return _plan(tuple(tensor.shape for tensor in tensors), codec.version, codec.chunk, codec.topk, codec.quantizer_bits)


@lru_cache(maxsize=8)
def _plan(shapes: tuple[tuple[int, ...], ...], version: int, chunk: int, topk: int, bits: int) -> Layout:
    check_codec(CodecSpec(version=version, chunk=chunk, topk=topk, quantizer_bits=bits))
    side = math.isqrt(chunk)
    grids: list[Grid] = []
    columns: list[tuple[Ints, Ints, Ints, Ints]] = []
    offset = count = 0
    for shape in shapes:
        size = math.prod(shape)
        grid = Grid(offset, *shape, side, side, count) if len(shape) == 2 else Grid(offset, 1, size, 1, chunk, count)
        part = _tiles(grid)
        grids.append(grid)
        columns.append(part)
        offset += size
        count += len(part[0])
    starts, lengths, widths, strides = (np.concatenate(column) for column in zip(*columns, strict=True))
    kept = -(-lengths * topk // chunk)
    return Layout(offset, tuple(grids), starts, lengths, widths, strides, kept, np.cumsum(kept) - kept)


def _tiles(grid: Grid) -> tuple[Ints, Ints, Ints, Ints]:
    top, left = np.arange(0, grid.rows, grid.height, dtype=np.int64), np.arange(0, grid.columns, grid.width, dtype=np.int64)
    heights, widths = np.minimum(grid.height, grid.rows - top), np.minimum(grid.width, grid.columns - left)
    starts = grid.offset + top[:, None] * grid.columns + left
    tiles = starts.size
    return starts.ravel(), np.outer(heights, widths).ravel(), np.tile(widths, len(top)), np.full(tiles, grid.columns, np.int64)
