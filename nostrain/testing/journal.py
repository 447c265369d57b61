"""A journal in memory, for simulations."""

from __future__ import annotations

from collections.abc import Iterator

from nostrain.errors import Unavailable
from nostrain.ports.journal import Batch
from nostrain.protocol.ledger import EntryKind, LedgerEntry, LedgerTotal
from nostrain.units import EventId, Msat


class MemoryJournal:
    """`ports.journal.Journal` without a disk, for tests that do not restart from it."""

    def __init__(self) -> None:
        self._rows: dict[str, bytes] = {}
        self._inputs: list[bytes] = []
        self._ledger: list[LedgerEntry] = []
        self.full = False
        """While true, the disk is full: `commit` raises Unavailable and writes nothing."""

    def load(self) -> dict[str, bytes]:
        """Every row, as a copy."""
        return dict(self._rows)

    def commit(self, batch: Batch) -> None:
        """Write `batch`. Raises Unavailable while `full`."""
        if self.full:
            raise Unavailable("the journal in memory plays a full disk: nothing written")
        self._inputs.extend(batch.inputs)
        self._ledger.extend(batch.entries)
        for key, value in batch.rows.items():
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value

    def inputs(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """The audit log from `start`; numbers begin at 1."""
        number = max(start, 1)
        while number <= len(self._inputs):
            yield number, self._inputs[number - 1]
            number += 1

    def ledger(self, start: int = 0, limit: int = 1000) -> tuple[tuple[int, LedgerEntry], ...]:
        """Entries from sequence number `start`, as the port."""
        first = max(start, 1)
        return tuple(enumerate(self._ledger[first - 1 : first - 1 + limit], start=first))

    def totals(self) -> tuple[LedgerTotal, ...]:
        """Sums by run and kind, as the port."""
        found: dict[EventId, dict[EntryKind, list[Msat]]] = {}
        for entry in self._ledger:
            found.setdefault(entry.run, {}).setdefault(entry.kind, []).append(entry.sum_msat)
        return tuple(
            LedgerTotal(run, kind, len(sums), Msat(sum(sums))) for run, kinds in found.items() for kind, sums in sorted(kinds.items())
        )
