"""Opening the journal's file: made once and whole, checked at every start, never silently recreated."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from nostrain.disk import fsync_folder
from nostrain.errors import ConfigError
from nostrain.journal.schema import APPLICATION_ID, VERSION, migrate, version_of

_RESTORE: Final = "It is not recreated, because that would forget money and promises: restore the data folder from a backup, or start a new identity in an empty data_dir"
_HEADER_BYTES: Final = 100


def open_database(path: Path, *, power_safe: bool) -> sqlite3.Connection:
    """A verified connection in autocommit mode, schema up to date; makes the file if neither it nor its write-ahead log is there.

    Raises ConfigError for a file that is damaged, foreign or newer than this program; sqlite3.Error or OSError for the rest.
    """
    if not path.exists():
        _create(path)
    elif path.stat().st_size < _HEADER_BYTES:
        raise _damaged(path, f"only {path.stat().st_size} bytes long")
    database = _connect(path)
    try:
        _verify(database, path)
        _configure(database, power_safe=power_safe)
        _check_length(database, path)
        migrate(database)
    except sqlite3.DatabaseError as error:
        database.close()
        # OperationalError is the world's fault (disk, permissions); its siblings are the file's.
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise _damaged(path, str(error)) from error
    except BaseException:
        database.close()
        raise
    return database


def _create(path: Path) -> None:
    """Make an empty journal beside `path` and rename it into place: under its own name a journal is always whole."""
    orphan = path.with_name(path.name + "-wal")
    if orphan.exists():
        raise _damaged(path, f"missing, though its write-ahead log {orphan.name} is there")
    unfinished = path.with_name(path.name + ".new")
    for leftover in (unfinished, path.with_name(unfinished.name + "-journal")):
        leftover.unlink(missing_ok=True)
    database = sqlite3.connect(unfinished, isolation_level=None)
    try:
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(database)
    finally:
        database.close()
    unfinished.chmod(0o600)
    unfinished.rename(path)
    fsync_folder(path.parent)


def _connect(path: Path) -> sqlite3.Connection:
    # `mode=rw` never creates; the journal's thread rule is its caller's (see SqliteJournal).
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=rw", uri=True, isolation_level=None, check_same_thread=False)


def _verify(database: sqlite3.Connection, path: Path) -> None:
    if int(_pragma(database, "application_id")) != APPLICATION_ID:
        raise ConfigError("data_dir", str(path), "not a nostrain journal", "Name another data_dir, or move that file away")
    version = version_of(database)
    if version > VERSION:
        reason = f"written by a newer nostraind (schema {version}, this one knows {VERSION})"
        raise ConfigError("data_dir", str(path), reason, "Upgrade nostraind; going back would lose what it knows")
    finding = str(_pragma(database, "quick_check(1)"))
    if finding != "ok":
        raise _damaged(path, " ".join(finding.split()))


def _configure(database: sqlite3.Connection, *, power_safe: bool) -> None:
    mode = _pragma(database, "journal_mode = WAL")
    if mode != "wal":
        raise sqlite3.OperationalError(f"write-ahead logging is not available on this file system ({mode})")
    database.execute(f"PRAGMA synchronous = {'FULL' if power_safe else 'OFF'}")
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("PRAGMA trusted_schema = OFF")


def _check_length(database: sqlite3.Connection, path: Path) -> None:
    """Once the log is in the file, the file is a whole number of pages. SQLite itself reads the missing end of a last page as zeros."""
    _pragma(database, "page_count")  # a read first: SQLite answers "locked" to the checkpoint of a log that it has just been switched to
    _pragma(database, "wal_checkpoint(TRUNCATE)")
    pages, size = int(_pragma(database, "page_count")), int(_pragma(database, "page_size"))
    if path.stat().st_size != pages * size:
        raise _damaged(path, f"{path.stat().st_size} bytes long instead of {pages * size}")


def _pragma(database: sqlite3.Connection, text: str) -> Any:
    """The first value that `PRAGMA text` answers. Read to its end: an unfinished one keeps a lock."""
    return database.execute(f"PRAGMA {text}").fetchall()[0][0]


def _damaged(path: Path, how: str) -> ConfigError:
    return ConfigError("data_dir", str(path), f"the journal is damaged: {how}", _RESTORE)
