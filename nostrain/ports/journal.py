"""Durable state (design section 9): machine rows are the truth, inputs are the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec


class Batch(msgspec.Struct, frozen=True):
    """What one commit writes, atomically: the inputs for the audit log and every machine row that they changed (None deletes a row)."""

    inputs: tuple[bytes, ...]
    rows: Mapping[str, bytes | None]


class Journal(Protocol):
    """One writer. Rows are opaque bytes under a text key."""

    def load(self) -> dict[str, bytes]:
        """Every machine row, as of the last commit."""
        ...

    def commit(self, batch: Batch) -> None:
        """Write `batch` durably; synchronous (a thread when live, inline in simulations). When it returns, it survives power loss.

        Raises Unavailable when the disk is full or unwritable: nothing of the batch was written.
        """
        ...

    def inputs(self, start: int = 0) -> Iterable[tuple[int, bytes]]:
        """The audit log from sequence number `start`: (sequence number, input)."""
        ...
