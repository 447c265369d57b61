"""What we published, kept for the relays that do not have it: those that were away when a quorum took it, and those that lost it since.

SQLite in one file, or in memory. Losing it loses no statement: what is not published yet is in the daemon's journal.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from nostrain.errors import ConfigError, Unavailable
from nostrain.protocol.event import Event
from nostrain.units import EventId, UnixTime
from nostrain.wire.event import encode_event
from nostrain.wire.kinds import GIFT_WRAP

KEEP_S: Final = 30 * 24 * 3600
KEEP_EVENTS: Final = 50_000
"""Bounds of the archive: about 100 MB at the size of our events. The oldest go first."""

EPHEMERAL: Final = range(20_000, 30_000)
"""Kinds that relays do not store (NIP-01): nobody is owed them later."""

ADVERTS: Final = (range(10_000, 20_000), range(30_000, 40_000))
"""Kinds of which a relay keeps one of each author, and `d` tag, the newest (NIP-01); the others it may refuse in any words."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events (number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, kind INTEGER NOT NULL, kept INTEGER NOT NULL, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS owed (relay TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (relay, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS events_kind ON events (kind);
CREATE INDEX IF NOT EXISTS events_kept ON events (kept);
"""


def is_advert(kind: int) -> bool:
    """Whether a newer event takes the place of one of this kind."""
    return any(kind in kinds for kinds in ADVERTS)


class Archive:
    """Every call takes a millisecond or less. Raises Unavailable when the disk fails: nothing was changed then."""

    def __init__(self, path: Path | None = None) -> None:
        try:
            self._database = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
            self._database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;" + _SCHEMA)
        except sqlite3.OperationalError as error:
            raise Unavailable(f"archive of events {path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise ConfigError("data_dir", str(path), f"the archive of events is damaged: {error}", "Move this file away") from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def _step(self) -> Iterator[sqlite3.Connection]:
        """One transaction."""
        try:
            self._database.execute("BEGIN")
            yield self._database
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise Unavailable(f"archive of events: {error}") from error

    def keep(self, event: Event, owed: Iterable[str], now: UnixTime) -> None:
        """Remember that a quorum has `event`, and which relays do not have it yet."""
        if event.kind in EPHEMERAL:
            return
        with self._step() as database:
            row = (event.id, event.kind, now, encode_event(event))
            database.execute("INSERT INTO events (id, kind, kept, raw) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
            database.executemany("INSERT OR IGNORE INTO owed VALUES (?, ?)", [(relay, event.id) for relay in owed])
            if is_advert(event.kind):
                self._replace(database, event)
            newest = database.execute("SELECT max(number) FROM events").fetchone()[0]
            gone = "SELECT id FROM events WHERE kept < ? OR number <= ?"
            bounds = (now - KEEP_S, newest - KEEP_EVENTS)
            database.execute(f"DELETE FROM owed WHERE id IN ({gone})", bounds)
            database.execute("DELETE FROM events WHERE kept < ? OR number <= ?", bounds)

    def _replace(self, database: sqlite3.Connection, event: Event) -> None:
        """Forget what `event` replaces: no relay ought to have it."""
        for id_, raw in database.execute("SELECT id, raw FROM events WHERE kind = ? AND id != ?", (event.kind, event.id)).fetchall():
            other = msgspec.json.decode(raw, type=Event)
            if (other.pubkey, other.tag("d")) == (event.pubkey, event.tag("d")) and other.created_at <= event.created_at:
                database.execute("DELETE FROM owed WHERE id = ?", (id_,))
                database.execute("DELETE FROM events WHERE id = ?", (id_,))

    def owed(self, relay: str, after: int = 0) -> tuple[int, Event] | None:
        """The oldest event that `relay` does not have yet, of those with a number above `after`, and its number."""
        with self._step() as database:
            query = "SELECT number, raw FROM owed JOIN events USING (id) WHERE relay = ? AND number > ? ORDER BY number LIMIT 1"
            row = database.execute(query, (relay, after)).fetchone()
        return (row[0], msgspec.json.decode(row[1], type=Event)) if row is not None else None

    def settle(self, relay: str, event_id: EventId) -> None:
        """`relay` has the event, or has refused it for good."""
        with self._step() as database:
            database.execute("DELETE FROM owed WHERE relay = ? AND id = ?", (relay, event_id))

    def owe(self, relay: str, ids: Iterable[EventId]) -> None:
        """`relay` has lost these: they are to be sent again."""
        with self._step() as database:
            database.executemany("INSERT OR IGNORE INTO owed SELECT ?, id FROM events WHERE id = ?", [(relay, id_) for id_ in ids])

    def latest(self, relay: str, count: int, *, letters: bool = False) -> Sequence[EventId]:
        """Ids of the latest events that `relay` ought to have, newest first: of gift wraps, or of all others. A relay may hide gift wraps even from us."""
        query = (
            "SELECT id FROM events WHERE (kind = ?) = ? AND id NOT IN (SELECT id FROM owed WHERE relay = ?) ORDER BY number DESC LIMIT ?"
        )
        with self._step() as database:
            return [EventId(row[0]) for row in database.execute(query, (GIFT_WRAP, letters, relay, count))]
