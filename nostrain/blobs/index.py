"""Who stored which blob: a small SQLite table beside the files. It answers quotas, lists and who may delete."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final, NamedTuple

from nostrain.blobs.incoming import no_room
from nostrain.errors import ConfigError
from nostrain.units import Digest, Pubkey, UnixTime

_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE upload (
    owner TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, uploaded INTEGER NOT NULL,
    PRIMARY KEY (owner, digest)
) WITHOUT ROWID;
CREATE INDEX upload_by_digest ON upload (digest);
PRAGMA user_version = 1;
"""


class Upload(NamedTuple):
    """One row: `owner` has stored `digest`, of `size` bytes, first at `uploaded`."""

    owner: Pubkey
    digest: Digest
    size: int
    uploaded: UnixTime


class UploadIndex:
    """The table. Every method blocks and commits before it returns; the store calls them one at a time, from its threads.

    Methods that write raise StorageFull when there is no room; the table is then unchanged.
    """

    def __init__(self, path: Path) -> None:
        """Open or create. Raises ConfigError when a newer program wrote it."""
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(_SCHEMA)
        elif version != _VERSION:
            self._db.close()
            raise ConfigError("blobs index", str(path), f"has version {version}, this program knows {_VERSION}", "run the newer program")

    def add(self, upload: Upload) -> Upload:
        """Record an upload; the first time stands. The row that there is now."""
        with no_room():
            self._db.execute("INSERT OR IGNORE INTO upload VALUES (?, ?, ?, ?)", upload)
        return Upload(*self._db.execute("SELECT * FROM upload WHERE owner = ? AND digest = ?", (upload.owner, upload.digest)).fetchone())

    def remove(self, owner: Pubkey, digest: Digest) -> bool:
        """Forget an upload; whether there was one."""
        with no_room():
            return self._db.execute("DELETE FROM upload WHERE owner = ? AND digest = ?", (owner, digest)).rowcount > 0

    def wanted(self, digest: Digest) -> bool:
        """Whether anyone still has an upload of `digest`."""
        return self._db.execute("SELECT 1 FROM upload WHERE digest = ? LIMIT 1", (digest,)).fetchone() is not None

    def usage(self, owner: Pubkey) -> int:
        """Sum of the sizes of what `owner` has stored."""
        (total,) = self._db.execute("SELECT coalesce(sum(size), 0) FROM upload WHERE owner = ?", (owner,)).fetchone()
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

    def close(self) -> None:
        """Close the database."""
        self._db.close()
