"""What keeps a dataset from being built, and what is left out of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nostrain.errors import NostrainError

SHOWN: Final = 20
"""Bad rows that are told one by one; the rest are only counted."""


class CorpusError(NostrainError):
    """The inputs or options cannot become a dataset; the message says which, and what to do."""


class Complaints:
    """Counts what is left out, and tells the first of it. With `strict`, the first is a CorpusError."""

    def __init__(self, tell: Callable[[str], None], *, strict: bool = False) -> None:
        self._tell, self._strict = tell, strict
        self.count = 0

    def bad(self, where: str, reason: str) -> None:
        """A row that cannot be used; `where` is file and line. Raises CorpusError if strict."""
        line = "".join(letter if letter.isprintable() else "?" for letter in f"{where}: {reason}")
        if self._strict:
            raise CorpusError(f"{line} (--strict)")
        self.count += 1
        if self.count <= SHOWN:
            self._tell(f"{line}; left out")
        elif self.count == SHOWN + 1:
            self._tell("further bad rows are only counted")
