"""The tables of the journal and how older files become newer ones. `PRAGMA user_version` counts the migrations applied."""

from __future__ import annotations

import sqlite3
from typing import Final

APPLICATION_ID: Final = 0x6E_73_74_72
"""`nstr` in the header of the file: tells a journal from any other SQLite database."""

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        "CREATE TABLE rows (key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL)",
        "CREATE TABLE inputs (seq INTEGER PRIMARY KEY AUTOINCREMENT, input BLOB NOT NULL)",
    ),
    (
        "CREATE TABLE ledger (seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, run TEXT NOT NULL, round INTEGER NOT NULL, "
        "announcement TEXT NOT NULL, kind TEXT NOT NULL, sum_msat INTEGER NOT NULL, payment_hash TEXT NOT NULL, party TEXT NOT NULL)",
        "CREATE TRIGGER ledger_kept BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is never cut'); END",
        "CREATE TRIGGER ledger_final BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger is never changed'); END",
    ),
)
"""Statements that lead from version i to i + 1. Append only: a released migration never changes."""

VERSION: Final = len(MIGRATIONS)


def version_of(database: sqlite3.Connection) -> int:
    """How many migrations the file has had."""
    return int(database.execute("PRAGMA user_version").fetchone()[0])


def migrate(database: sqlite3.Connection) -> None:
    """Bring the file to VERSION, one transaction a step, so that a crash leaves a whole version. `database` is in autocommit mode."""
    for version in range(version_of(database), VERSION):
        database.execute("BEGIN IMMEDIATE")
        try:
            for statement in MIGRATIONS[version]:
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {version + 1}")
            database.execute("COMMIT")
        except sqlite3.Error:
            database.execute("ROLLBACK")
            raise
