"""What an oracle must never forget: which outcome each nonce has signed (design section 6, the oracle's journal).

Two outcomes signed with one nonce publish the oracle's key. So (nonce, outcome) is committed under a unique constraint before a signature
exists, and a journal that has been rolled back must be noticed. It is, by a *token* that lives twice, here and in the file
`oracle.generation`, and changes at every start and before every first release of a signature:

    1  commit the rows together with the next token (pending)
    2  replace the file by the next token, durably
    3  commit the next token and the file's ctime as the current ones; only now sign

An older database does not match the file; a folder restored as a whole has a file of another ctime, which no copying tool can set. Either
begins a new *generation*: fresh nonces for everything announced from now on, refusal of everything announced before. Not noticed are a
folder backup taken in the milliseconds between 2 and 3, and the rollback of a whole disk image, ctime included: a virtual machine that
holds an oracle is not to be reverted to a snapshot.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nostrain.errors import ConfigError, LocalProtocolError, Unavailable
from nostrain.keys.store import sync_folder

DATABASE_FILE: Final = "oracle.sqlite"
GENERATION_FILE: Final = "oracle.generation"

_SCHEMA: Final = (
    """CREATE TABLE IF NOT EXISTS state (
        id INTEGER PRIMARY KEY CHECK (id = 0), generation BLOB NOT NULL, token BLOB NOT NULL, ctime_ns INTEGER NOT NULL, pending BLOB)""",
    """CREATE TABLE IF NOT EXISTS announcements (
        event_id TEXT PRIMARY KEY, generation BLOB NOT NULL, digits INTEGER NOT NULL, maturity INTEGER NOT NULL, tlv BLOB NOT NULL UNIQUE)""",
    """CREATE TABLE IF NOT EXISTS attestations (nonce BLOB PRIMARY KEY, outcome TEXT NOT NULL) WITHOUT ROWID""",
)


class OracleJournal:
    """The journal in one folder, for one process and one thread at a time. Every method returns only when its write is durable.

    Raises Unavailable when the disk is full or unwritable: nothing may be signed or announced on the strength of that call.
    """

    def __init__(self, folder: Path, draw: Callable[[int], bytes]) -> None:
        """Open or create; `draw` gives fresh random bytes. Raises ConfigError when `folder` holds something that is not an oracle's journal."""
        self._file = folder / GENERATION_FILE
        self._draw = draw
        path = folder / DATABASE_FILE
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(path, error) from error
        try:
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._start()
        except (OSError, sqlite3.Error, Unavailable) as error:
            self._db.close()
            raise _unusable(path, error) from error

    def _start(self) -> None:
        """Create the tables, begin a new generation unless database and file belong together, and set the next token."""
        with self._write():
            for statement in _SCHEMA:
                self._db.execute(statement)
            found = self._matching_file()
            if found is None:
                self._db.execute("REPLACE INTO state VALUES (0, ?, ?, 0, ?)", (self._draw(32), self._draw(32), self._draw(32)))
            else:
                self._db.execute("UPDATE state SET token = ?, ctime_ns = ?, pending = ?", (*found, self._draw(32)))
        self._publish()

    def _matching_file(self) -> tuple[bytes, int] | None:
        """Token and ctime of the file, if it goes with this database: after step 3, or killed between 2 and 3."""
        row = self._db.execute("SELECT token, ctime_ns, pending FROM state").fetchone()
        try:
            found, ctime_ns = self._file.read_bytes(), self._file.stat().st_ctime_ns
        except FileNotFoundError:
            return None
        belongs = row is not None and (found == row[2] or (found, ctime_ns) == row[:2])
        return (found, ctime_ns) if belongs else None

    def close(self) -> None:
        """Close the database. Not needed for safety: a kill at any time is."""
        self._db.close()

    @property
    def generation(self) -> bytes:
        """32 bytes that change whenever the journal may have lost something."""
        generation: bytes = self._db.execute("SELECT generation FROM state").fetchone()[0]
        return generation

    def announced(self, event_id: str, digits: int, maturity: int) -> bytes | None:
        """The announcement made for `event_id`, in whatever generation. Raises LocalProtocolError when it had other parameters."""
        row = self._db.execute("SELECT digits, maturity, tlv FROM announcements WHERE event_id = ?", (event_id,)).fetchone()
        if row is None:
            return None
        if row[:2] != (digits, maturity):
            raise LocalProtocolError(f"oracle: {event_id} was already announced with {row[0]} digits maturing at {row[1]}")
        return bytes(row[2])

    def record_announcement(self, event_id: str, digits: int, maturity: int, tlv: bytes) -> None:
        """Remember an announcement of the current generation; `event_id` has none yet."""
        with self._write():
            self._db.execute("INSERT INTO announcements VALUES (?, ?, ?, ?, ?)", (event_id, self.generation, digits, maturity, tlv))

    def require_current(self, tlv: bytes) -> None:
        """Raises LocalProtocolError unless `tlv` was announced here, in the current generation."""
        row = self._db.execute("SELECT generation FROM announcements WHERE tlv = ?", (tlv,)).fetchone()
        if row is None:
            raise LocalProtocolError("oracle: asked to attest an announcement that it did not make")
        if row[0] != self.generation:
            raise LocalProtocolError("oracle: asked to attest an event announced before its journal was restored from a backup")

    def record_outcomes(self, nonces: Sequence[bytes], outcomes: Sequence[str]) -> None:
        """Bind every nonce to its outcome for ever; the signatures may be made when this returns.

        Raises LocalProtocolError, with nothing recorded, when one of the nonces is bound to another outcome.
        """
        self._publish()  # a token that an earlier failure left pending: it must not stand for these rows too
        with self._write():
            fresh = [pair for pair in zip(nonces, outcomes, strict=True) if not self._bound(*pair)]
            self._db.executemany("INSERT INTO attestations VALUES (?, ?)", fresh)
            if fresh:
                self._db.execute("UPDATE state SET pending = ?", (self._draw(32),))
        self._publish()

    def _bound(self, nonce: bytes, outcome: str) -> bool:
        row = self._db.execute("SELECT outcome FROM attestations WHERE nonce = ?", (nonce,)).fetchone()
        if row is not None and row[0] != outcome:
            raise LocalProtocolError(f"oracle: nonce {nonce.hex()} has signed {row[0]}, asked to sign {outcome}")
        return row is not None

    def _publish(self) -> None:
        """Steps 2 and 3, if a token is pending."""
        pending: bytes | None = self._db.execute("SELECT pending FROM state").fetchone()[0]
        if pending is None:
            return
        try:
            ctime_ns = self._replace_file(pending)
        except OSError as error:
            raise Unavailable(f"oracle journal: {self._file.name} cannot be written ({error.strerror})") from error
        with self._write():
            self._db.execute("UPDATE state SET token = pending, ctime_ns = ?, pending = NULL", (ctime_ns,))

    def _replace_file(self, token: bytes) -> int:
        """Put `token` in the file atomically and durably; the file's ctime."""
        beside = self._file.with_name(self._file.name + ".new")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(token)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self._file)
        sync_folder(self._file.parent)
        return self._file.stat().st_ctime_ns

    @contextmanager
    def _write(self) -> Iterator[None]:
        """One durable transaction, rolled back on any error."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise Unavailable(f"oracle journal: {error}") from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _unusable(path: Path, error: Exception) -> ConfigError:
    return ConfigError("data_dir", str(path), f"the oracle's journal cannot be used ({error})", "Check the folder and its disk")
