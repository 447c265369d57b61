"""`ports.tolls.FirstUse` in a small SQLite file: which paid token was used, and for what."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import trio

from nostrain.errors import ConfigError, Unavailable
from nostrain.ports.clock import Clock
from nostrain.units import UnixTime

T = TypeVar("T")


class SqliteFirstUse:
    """Rows (key, subject, expires) in the file at `path`; expired ones go when another is written. Close it when done."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Open or create. Blocking. Raises ConfigError when the file is damaged, sqlite3.OperationalError when it cannot be used now."""
        self._clock = clock
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.OperationalError:
            self._db.close()
            raise
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ConfigError(
                "data_dir", str(path), f"damaged: {error}", "Move the file away: what was used may then be used again"
            ) from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS use (key TEXT PRIMARY KEY, subject TEXT NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID"
        )
        self._db.execute("CREATE INDEX IF NOT EXISTS use_by_expiry ON use (expires)")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    async def claim(self, key: str, subject: str, expires: UnixTime) -> str:
        """As the port. One transaction: of two claims at once, one is first."""
        return await self._work(lambda: self._claim(key, subject, expires))

    async def claimed(self, key: str) -> str | None:
        """As the port."""
        return await self._work(lambda: self._find(key))

    async def _work(self, work: Callable[[], T]) -> T:
        def locked() -> T:
            try:
                with self._lock:
                    return work()
            except sqlite3.Error as error:
                raise Unavailable(f"the memory of used payments: {error}") from error

        return await trio.to_thread.run_sync(locked)

    def _claim(self, key: str, subject: str, expires: UnixTime) -> str:
        with closing(self._db.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                cursor.execute("DELETE FROM use WHERE expires < ?", (self._clock.now(),))
                cursor.execute("INSERT OR IGNORE INTO use VALUES (?, ?, ?)", (key, subject, expires))
                (first,) = cursor.execute("SELECT subject FROM use WHERE key = ?", (key,)).fetchone()
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")
        return str(first)

    def _find(self, key: str) -> str | None:
        row = self._db.execute("SELECT subject FROM use WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])
