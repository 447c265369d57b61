"""Who stored which blob, and when it was last asked for: two small SQLite tables beside the files. They answer quotas, lists, who may delete,
and what may be removed.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from nostrain.blobs.incoming import no_room
from nostrain.errors import ConfigError
from nostrain.units import Digest, Pubkey, UnixTime, is_hex32

_VERSION: Final = 2
_UPLOADS: Final = """
CREATE TABLE upload (
    owner TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, uploaded INTEGER NOT NULL,
    PRIMARY KEY (owner, digest)
) WITHOUT ROWID;
CREATE INDEX upload_by_digest ON upload (digest);
"""
_BLOBS: Final = """
CREATE TABLE blob (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX blob_by_use ON blob (used, digest);
INSERT INTO blob SELECT digest, max(size), max(uploaded) FROM upload GROUP BY digest;
PRAGMA user_version = 2;
"""
_IDLE: Final = """
FROM blob WHERE used < ? AND NOT EXISTS (
    SELECT 1 FROM upload WHERE upload.digest = blob.digest AND owner IN (SELECT value FROM json_each(?))
)
"""


class Upload(NamedTuple):
    """One row: `owner` has stored `digest`, of `size` bytes, first at `uploaded`."""

    owner: Pubkey
    digest: Digest
    size: int
    uploaded: UnixTime


class Stored(NamedTuple):
    """A blob that is here, of `size` bytes; `used`: when it was last uploaded or asked for."""

    digest: Digest
    size: int
    used: UnixTime


class UploadIndex:
    """The tables. Every method blocks and commits before it returns; the store calls them one at a time, from its threads.

    Methods that write raise StorageFull when there is no room; the tables are then unchanged.
    """

    def __init__(self, path: Path) -> None:
        """Open, create or bring up to date. Raises ConfigError when a newer program wrote it."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            self._db.close()
            raise ConfigError("blobs index", str(path), f"has version {version}, this program knows {_VERSION}", "run the newer program")
        if version < _VERSION:
            self._db.executescript(f"BEGIN; {'' if version else _UPLOADS} {_BLOBS} COMMIT;")

    def add(self, upload: Upload) -> Upload:
        """Record an upload; the first time stands. The row that there is now."""
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO upload VALUES (?, ?, ?, ?)", upload)
            self._note([Stored(upload.digest, upload.size, upload.uploaded)])
        return Upload(*self._db.execute("SELECT * FROM upload WHERE owner = ? AND digest = ?", (upload.owner, upload.digest)).fetchone())

    def remove(self, owner: Pubkey, digest: Digest) -> bool:
        """Forget an upload; whether there was one."""
        with no_room():
            return self._db.execute("DELETE FROM upload WHERE owner = ? AND digest = ?", (owner, digest)).rowcount > 0

    def forget(self, digests: Collection[Digest]) -> None:
        """Forget blobs and all their uploads."""
        with self._transaction():
            for table in ("upload", "blob"):
                self._db.executemany(f"DELETE FROM {table} WHERE digest = ?", [(digest,) for digest in digests])

    def wanted(self, digest: Digest) -> bool:
        """Whether anyone still has an upload of `digest`."""
        return self._db.execute("SELECT 1 FROM upload WHERE digest = ? LIMIT 1", (digest,)).fetchone() is not None

    def usage(self, owner: Pubkey, but: Pubkey) -> int:
        """Sum of the sizes of what `owner` has stored, and `but` has not."""
        (total,) = self._db.execute(
            """
            SELECT coalesce(sum(size), 0) FROM upload AS u WHERE owner = ? AND NOT EXISTS (
                SELECT 1 FROM upload AS o WHERE o.digest = u.digest AND o.owner = ? AND o.owner <> u.owner
            )
            """,
            (owner, but),
        ).fetchone()
        return int(total)

    def uploads(self, owner: Pubkey, after: Digest | None, limit: int) -> list[Upload]:
        """What `owner` has stored, newest first, beginning after the blob `after` (BUD-12's cursor)."""
        rows = self._db.execute(
            """
            SELECT owner, digest, size, uploaded FROM upload AS u WHERE owner = :owner AND (:after IS NULL OR EXISTS (
                SELECT 1 FROM upload AS c WHERE c.owner = :owner AND c.digest = :after AND (u.uploaded, u.digest) < (c.uploaded, c.digest)
            )) ORDER BY uploaded DESC, digest DESC LIMIT :limit
            """,
            {"owner": owner, "after": after, "limit": limit},
        )
        return [Upload(*row) for row in rows]

    def used(self, times: Mapping[Digest, UnixTime]) -> None:
        """Note when blobs were asked for; what is not here is passed over."""
        with self._transaction():
            self._db.executemany("UPDATE blob SET used = max(used, ?) WHERE digest = ?", [(time, name) for name, time in times.items()])

    def correct(self, there: Mapping[Digest, Stored]) -> tuple[int, int]:
        """Make the table of blobs what is `there`: how many were unknown, and how many rows had no file."""
        known = {Digest(row[0]) for row in self._db.execute("SELECT digest FROM blob")}
        new, gone = there.keys() - known, known - there.keys()
        with self._transaction():
            self._note([there[digest] for digest in new])
        self.forget(gone)
        return len(new), len(gone)

    def total(self) -> int:
        """Sum of the sizes of all blobs."""
        return int(self._db.execute("SELECT coalesce(sum(size), 0) FROM blob").fetchone()[0])

    def idle(self, before: UnixTime, keep: Collection[Pubkey], limit: int) -> list[Stored]:
        """Blobs that were last used before `before` and that none of `keep` has stored, the longest unused first."""
        rows = self._db.execute(f"SELECT digest, size, used {_IDLE} ORDER BY used, digest LIMIT ?", (before, _json(keep), limit))
        return [Stored(*row) for row in rows]

    def idle_bytes(self, before: UnixTime, keep: Collection[Pubkey]) -> int:
        """Sum of the sizes of all such blobs."""
        return int(self._db.execute(f"SELECT coalesce(sum(size), 0) {_IDLE}", (before, _json(keep))).fetchone()[0])

    def last_use(self, digest: Digest, keep: Collection[Pubkey]) -> UnixTime | None:
        """When the blob was last used; None if one of `keep` has stored it, or it is not here."""
        row = self._db.execute(f"SELECT used {_IDLE} AND digest = ?", (1 << 62, _json(keep), digest)).fetchone()
        return None if row is None else UnixTime(row[0])

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _note(self, blobs: Collection[Stored]) -> None:
        self._db.executemany("INSERT INTO blob VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET used = max(used, excluded.used)", blobs)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with no_room():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise


def found(root: Path) -> dict[Digest, Stored]:
    """The blobs that lie in the store's folders, as last used when their files were written. Raises OSError."""
    there = {}
    for folder in root.glob("[0-9a-f][0-9a-f]"):
        for file in os.scandir(folder):
            if is_hex32(file.name) and file.name[:2] == folder.name:
                status = file.stat()
                there[Digest(file.name)] = Stored(Digest(file.name), status.st_size, UnixTime(int(status.st_mtime)))
    return there


def _json(keys: Collection[Pubkey]) -> str:
    return json.dumps(list(keys))
