"""Durable state (design section 9): machine rows are the truth, inputs are the audit log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from nostrain.protocol.ledger import LedgerEntry, LedgerTotal


class Batch(msgspec.Struct, frozen=True):
    """What one commit writes, atomically: the inputs for the audit log, every machine row that they changed (None deletes a row), and what they did
    to our money."""

    inputs: tuple[bytes, ...]
    rows: Mapping[str, bytes | None]
    entries: tuple[LedgerEntry, ...] = ()


class Journal(Protocol):
    """One writer. Rows are opaque bytes under a text key. What is in the ledger stays there."""

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

    def ledger(self, start: int = 0, limit: int = 1000) -> tuple[tuple[int, LedgerEntry], ...]:
        """At most `limit` entries of the ledger from sequence number `start`, in order; numbers begin at 1 and have no gaps."""
        ...

    def totals(self) -> tuple[LedgerTotal, ...]:
        """The whole ledger, summed up by run and kind, in the order of each run's first entry, then of kinds."""
        ...
