"""Adapter of `ports.journal`: machine rows and the audit log in one SQLite file (design section 9)."""

from nostrain.journal.sqlite import SqliteJournal

__all__ = ["SqliteJournal"]
