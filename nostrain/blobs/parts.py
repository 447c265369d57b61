"""What came of blobs whose download was broken off: files named after their blobs, so that the next call, or the next process, goes on from there.

Nothing vouches for a part. It is the beginning of a transfer like any other: the whole is judged when it is complete, and a beginning that was wrong is
not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nostrain.ports.clock import Clock
from nostrain.units import Digest, is_hex32


@dataclass(frozen=True, slots=True)
class PartLimits:
    """How much of what is not there yet is kept, in bytes together, and for how many seconds after the last of it came."""

    total: int = 20 << 30
    age: int = 3 * 24 * 3600


class _Left(NamedTuple):
    changed: float
    size: int
    path: Path


class Parts:
    """The folder of parts. Those in use are taken; the others may go."""

    def __init__(self, folder: Path, clock: Clock, limits: PartLimits) -> None:
        """Make the folder if need be, and tidy it up. Blocking."""
        self._folder, self._clock, self._limits = folder, clock, limits
        self._taken: set[Digest] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self.tidy()

    def take(self, digest: Digest) -> Path | None:
        """The file for the blob, which may exist; None while somebody else has it."""
        if digest in self._taken:
            return None
        self._taken.add(digest)
        return self._folder / digest

    def give_back(self, digest: Digest) -> None:
        """The end of `take`."""
        self._taken.discard(digest)
        self.tidy()

    def tidy(self) -> None:
        """Remove what is too old, is too much, the oldest first, or is nothing of ours."""
        left = self._left()
        total = sum(part.size for part in left)
        for part in left:
            strange = not is_hex32(part.path.name)
            if strange or total > self._limits.total or part.changed < self._clock.now() - self._limits.age:
                part.path.unlink(missing_ok=True)
                total -= part.size

    def idle_bytes(self) -> int:
        """What `make_way` could free."""
        return sum(part.size for part in self._left())

    def make_way(self, wanted: int) -> None:
        """Remove parts, the oldest first, until so many bytes are free, or none is left that may go."""
        for part in self._left():
            if wanted > 0:
                part.path.unlink(missing_ok=True)
                wanted -= part.size

    def _left(self) -> list[_Left]:
        """Those that nobody has taken, the oldest first."""
        left = []
        for path in self._folder.iterdir():
            if path.name not in self._taken:
                status = path.stat()
                left.append(_Left(status.st_mtime, status.st_size, path))
        return sorted(left)
