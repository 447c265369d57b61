"""The journal on SQLite: WAL, synchronous=FULL, one writer (design section 9)."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from nostrain.errors import ConfigError, LocalProtocolError, NostrainError, OutcomeUnknown, Unavailable
from nostrain.journal.files import open_database
from nostrain.journal.lock import WriterLock
from nostrain.ports.journal import Batch
from nostrain.protocol.ledger import LedgerEntry, LedgerTotal

_PAGE: Final = 256

_COLUMNS: Final = ", ".join(LedgerEntry.__struct_fields__)

_WORLD: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
    }
)
"""Primary result codes that speak of the disk, not of the journal or of us."""

_UNSYNCED: Final = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
"""The bytes were written and the disk would not promise to keep them: after a crash they may be there or not."""

_PASSING: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE})


class SqliteJournal:
    """`ports.journal.Journal` in one file.

    Any thread may call, one at a time: the caller serializes. `inputs` reads in pages, so it may be interleaved with commits.
    """

    def __init__(self, path: Path, database: sqlite3.Connection, lock: WriterLock) -> None:
        self._path, self._database, self._lock = path, database, lock
        self._unsynced = False

    @classmethod
    def open(cls, path: Path, *, power_safe: bool = True) -> SqliteJournal:
        """Open the journal at `path`, or make it. The file is checked whole first (milliseconds a megabyte).

        `power_safe=False` gives up power-loss safety, not atomicity or safety from a killed process: for simulations.
        Raises ConfigError: another writer has it, it is damaged or newer than this program, or may not be written; Unavailable: the disk is full.
        """
        lock = None
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = WriterLock(path.with_name(path.name + ".lock"))
            return cls(path, open_database(path, power_safe=power_safe), lock)
        except BaseException as error:
            if lock is not None:
                lock.release()
            if isinstance(error, OSError | sqlite3.Error):
                raise _cannot_open(path, error) from error
            raise

    def load(self) -> dict[str, bytes]:
        """Every machine row, as of the last commit."""
        return dict(self._database.execute("SELECT key, value FROM rows"))

    def commit(self, batch: Batch) -> None:
        """Write `batch` durably and atomically.

        Raises Unavailable when the disk is full or unwritable: nothing of the batch was written. Raises OutcomeUnknown when the disk failed to
        promise what it had written: only opening the journal anew tells, so every later commit raises it too. Raises LocalProtocolError when
        the file is damaged or closed.
        """
        if self._unsynced:
            raise OutcomeUnknown(f"journal {self._path}: an earlier commit could not be synced; open the journal again")
        try:
            self._write(batch)
        except sqlite3.Error as error:
            raise self._explain(error) from error
        finally:
            self._roll_back()

    def inputs(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """The audit log from sequence number `start`, in order; numbers begin at 1 and have no gaps."""
        while page := self._database.execute(
            "SELECT seq, input FROM inputs WHERE seq >= ? ORDER BY seq LIMIT ?", (start, _PAGE)
        ).fetchall():
            yield from page
            start = page[-1][0] + 1

    def ledger(self, start: int = 0, limit: int = 1000) -> tuple[tuple[int, LedgerEntry], ...]:
        """Entries from sequence number `start`, as the port."""
        rows = self._database.execute(f"SELECT seq, {_COLUMNS} FROM ledger WHERE seq >= ? ORDER BY seq LIMIT ?", (start, limit))
        return tuple((seq, LedgerEntry(*values)) for seq, *values in rows)

    def totals(self) -> tuple[LedgerTotal, ...]:
        """Sums by run and kind, as the port."""
        rows = self._database.execute(
            "SELECT run, kind, COUNT(*), SUM(sum_msat) FROM ledger GROUP BY run, kind ORDER BY MIN(seq)"
        ).fetchall()
        runs = list(dict.fromkeys(run for run, *_ in rows))
        return tuple(LedgerTotal(*row) for row in sorted(rows, key=lambda row: (runs.index(row[0]), row[1])))

    def close(self) -> None:
        """Close the file and let the next writer in. Calling it twice is harmless."""
        self._database.close()
        self._lock.release()

    def __enter__(self) -> SqliteJournal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _write(self, batch: Batch) -> None:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        database.executemany("INSERT INTO inputs (input) VALUES (?)", [(value,) for value in batch.inputs])
        kept = [(key, value) for key, value in batch.rows.items() if value is not None]
        database.executemany("INSERT INTO rows (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", kept)
        database.executemany("DELETE FROM rows WHERE key = ?", [(key,) for key, value in batch.rows.items() if value is None])
        database.executemany(
            f"INSERT INTO ledger ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", [msgspec.structs.astuple(entry) for entry in batch.entries]
        )
        database.execute("COMMIT")

    def _roll_back(self) -> None:
        # SQLite has often rolled back by itself after an I/O error, and may fail again while doing what is left.
        with contextlib.suppress(sqlite3.Error):
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def _explain(self, error: sqlite3.Error) -> NostrainError:
        code = getattr(error, "sqlite_errorcode", 0)
        if code in _UNSYNCED:
            self._unsynced = True
            return OutcomeUnknown(f"journal {self._path}: the disk failed to sync a commit ({error})")
        if code & 0xFF in _WORLD:
            return Unavailable(f"journal {self._path}: nothing written: {error}")
        return LocalProtocolError(f"journal {self._path}: {error}")


def _cannot_open(path: Path, error: OSError | sqlite3.Error) -> NostrainError:
    passing = error.errno in _PASSING if isinstance(error, OSError) else getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    if passing:
        return Unavailable(f"journal {path}: cannot be opened now: {reason}")
    return ConfigError(
        "data_dir", str(path.parent), f"the journal cannot be opened: {reason}", "Check that the folder exists, is ours and may be written"
    )
