"""The plugin's file: opened by both processes, made by whichever comes first, never silently recreated from a damaged one."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from nostrain.errors import LocalProtocolError
from nostrain.holdplugin.invoices import Settings

APPLICATION_ID: Final = 0x6E73686C
"""`nshl`."""
VERSION: Final = 1
BUSY_S: Final = 10.0
"""How long one process waits for the other's transaction, which takes milliseconds."""

_TABLES: Final = (
    """CREATE TABLE invoices (
        id INTEGER PRIMARY KEY,
        payment_hash TEXT NOT NULL UNIQUE,
        payment_secret TEXT NOT NULL,
        preimage TEXT,
        invoice TEXT NOT NULL,
        state TEXT NOT NULL,
        amount_msat INTEGER NOT NULL,
        final_cltv INTEGER NOT NULL,
        min_cltv INTEGER,
        expires_at INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        settled_at INTEGER,
        revision INTEGER NOT NULL
    ) STRICT""",
    "CREATE TABLE settings (expiry_deadline INTEGER NOT NULL, mpp_timeout_s INTEGER NOT NULL) STRICT",
    f"INSERT INTO settings VALUES ({Settings.expiry_deadline}, {Settings.mpp_timeout_s})",
    "CREATE TABLE revisions (last INTEGER NOT NULL) STRICT",
    "INSERT INTO revisions VALUES (0)",
    "CREATE INDEX invoices_by_revision ON invoices (revision)",
    """CREATE TABLE htlcs (
        id INTEGER PRIMARY KEY,
        invoice_id INTEGER NOT NULL REFERENCES invoices (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        onion TEXT NOT NULL,
        scid TEXT NOT NULL,
        msat INTEGER NOT NULL,
        total_msat INTEGER NOT NULL,
        cltv_expiry INTEGER NOT NULL,
        state TEXT NOT NULL,
        failure TEXT NOT NULL,
        holder TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        UNIQUE (invoice_id, number, onion)
    ) STRICT""",
    "CREATE INDEX htlcs_by_state ON htlcs (state, cltv_expiry)",
)


def open_database(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode that may be used from any one thread at a time.

    Raises LocalProtocolError for a file that is not the plugin's or is newer than this program, sqlite3.Error for a damaged one.
    """
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
    try:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("BEGIN IMMEDIATE")
        try:
            _migrate(database, path)
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
        path.chmod(0o600)
    except BaseException:
        database.close()
        raise
    return database


def _migrate(database: sqlite3.Connection, path: Path) -> None:
    application = int(database.execute("PRAGMA application_id").fetchone()[0])
    version = int(database.execute("PRAGMA user_version").fetchone()[0])
    tables = int(database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application == APPLICATION_ID and version == VERSION:
        return
    if application or tables:
        raise LocalProtocolError(f"{path} is not a database of nostrain-hold, version {VERSION}")
    for statement in _TABLES:
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {VERSION}")
