"""Where one filter stands on one relay: what was read, what to ask next. No I/O.

A relay answers a query newest first and cuts it at a limit of its own, so history is *walked* backwards page by page until a page is
empty. Only a finished walk moves the cursor: a connection that breaks half-way leaves a hole at the old end, not at the new one.
Paging goes by what events claim, verified or not; a relay that lies about that could as well have withheld the events. The cursor goes by
verified events alone: a forged one dated today must not hide what is asked for after the next reconnection.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.protocol.event import Filter
from nostrain.units import UnixTime

GIFT_WRAP: Final = 1059
GIFT_WRAP_OVERLAP_S: Final = 3 * 24 * 3600
"""NIP-59 backdates wraps by up to two days: their `created_at` says nothing about when they were published."""


class Query:
    """One filter on one relay, through any number of connections."""

    def __init__(self, wanted: Filter, *, overlap_s: int, page_size: int, renewal_overlap_s: int = 0) -> None:
        wraps = not wanted.kinds or GIFT_WRAP in wanted.kinds
        self._wanted, self._page_size, self._renewal_overlap = wanted, page_size, renewal_overlap_s
        self._overlap = max(overlap_s, GIFT_WRAP_OVERLAP_S) if wraps else overlap_s
        self._walked_overlap = self._overlap
        self._cursor: int | None = None
        self._newest = 0
        self._since, self._until = wanted.since, wanted.until
        self._oldest: int | None = None
        self._asked = False
        self._walking = False
        self._lossy = False
        self._restart = False

    @property
    def walking(self) -> bool:
        """Whether history is being read."""
        return self._walking

    def live(self) -> Filter:
        """The filter to (re)subscribe with: everything at first, later from the cursor with overlap. Starts a walk."""
        self._start(self._overlap)
        return self.page()

    def renewed(self) -> Filter:
        """As `live`, with the longer overlap: finds what was published long after its date, or was missed."""
        self._start(max(self._overlap, self._renewal_overlap))
        return self.page()

    def _start(self, overlap: int) -> None:
        self._walking, self._restart, self._walked_overlap = True, False, overlap
        self._until = self._wanted.until
        self._since = self._wanted.since
        if self._cursor is not None:
            self._since = UnixTime(max(self._wanted.since or 0, self._cursor - overlap))

    def page(self) -> Filter:
        """The filter for the next page of the walk."""
        if self._restart:
            self._start(self._walked_overlap)
        self._asked, self._lossy, self._oldest = True, False, None
        limit = self._page_size if self._wanted.limit is None else self._wanted.limit
        return msgspec.structs.replace(self._wanted, since=self._since, until=self._until, limit=limit)

    def saw(self, created_at: UnixTime) -> None:
        """An answer to this query arrived, which claims this date and need not be true."""
        if self._oldest is None or created_at < self._oldest:
            self._oldest = created_at

    def verified(self, created_at: UnixTime, now: UnixTime) -> None:
        """It was valid and wanted. A time in the future is taken for `now`: it must not carry the cursor past real events."""
        self._newest = max(self._newest, min(created_at, now))
        if not self._walking:
            self._cursor = self._newest

    def lost(self, created_at: UnixTime) -> bool:
        """The event had to be dropped, for want of room. True: ask for `page()` when there is room again (else the walk repeats by itself)."""
        if self._walking:
            self._lossy = True
            self._restart |= self._until is not None and created_at > self._until
            return False
        self._cursor = min(self._newest if self._cursor is None else self._cursor, created_at)
        self._start(self._overlap)
        return True

    def end_of_page(self) -> bool:
        """The page is through. True: ask for the next `page()` when there is room; False: the walk is over, or was not waiting for this."""
        if not self._asked:
            return False
        self._asked = False
        if self._lossy or self._restart:
            return True
        if self._oldest is not None and self._wanted.limit is None:
            # Events of the same second may lie on both sides of the cut, so the next page begins with the second that ended this one.
            until = self._oldest if self._until is None or self._oldest < self._until else self._until - 1
            if until >= (self._since or 0):
                self._until = UnixTime(until)
                return True
        self._walking = False
        self._cursor = max(self._cursor or 0, self._newest) if self._newest else self._cursor
        return False
