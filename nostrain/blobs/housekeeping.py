"""What a server removes by itself: blobs that nobody has asked for in a long time, and, when it is full, those that were not asked for the longest.

Rows go before files (`BlobStore.remove_idle`): a removal that is cut off leaves a file without an owner, which is served as before, found at the next
start and removed when its time has come. Whoever is downloading a blob meanwhile has it to its end (`serving`).
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from email.utils import formatdate
from math import inf
from typing import Final

import trio

from nostrain.blobs.incoming import StorageFull
from nostrain.blobs.store import BlobStore
from nostrain.ports.clock import Clock
from nostrain.units import Digest, Pubkey, UnixTime

_log = logging.getLogger("nostrain.blobs")

SWEEP_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long blobs stay. Times in seconds since a blob was last uploaded or downloaded, sizes in bytes; 0: no such rule.

    `keep`: what these have stored is never removed.
    """

    idle: int = 0
    """Longer unused than this, a blob is removed."""
    store: int = 0
    """All blobs together are no larger: the longest unused make room for new ones …"""
    grace: int = 24 * 3600
    """… if they have been unused for so long."""
    keep: frozenset[Pubkey] = frozenset()


class Housekeeping:
    """Keeps the store to its `rules`."""

    def __init__(self, store: BlobStore, clock: Clock, rules: Retention | None = None) -> None:
        """Without `rules` nothing is ever removed."""
        self._store, self._clock, self._rules = store, clock, rules or Retention()

    async def run(self) -> None:
        """Take stock once, and sweep now and then, until cancelled. A disk that fails is said and tried again."""
        stocked = False
        while True:
            try:
                if not stocked:
                    found, lost = await self._store.take_stock()
                    stocked = True
                    if found or lost:
                        _log.warning("blobs: %d files that the index did not know, %d of its rows had no file", found, lost)
                await self.sweep()
            except (OSError, sqlite3.Error, StorageFull) as error:
                _log.warning("blobs cannot be tidied up now: %s", error)
            await trio.sleep(SWEEP_S)

    async def sweep(self) -> int:
        """Remove what is unused for too long; how many blobs. Raises OSError, StorageFull."""
        count = 0
        while self._rules.idle and (gone := await self._store.remove_idle(self._ago(self._rules.idle), self._rules.keep, inf)):
            count += len(gone)
        if count:
            _log.info("%d blobs that nobody asked for in %.1f days were removed", count, self._rules.idle / 86400)
        elif not self._rules.idle:
            await self._store.note_uses()
        return count

    async def check_room(self, size: int, coming: int = 0) -> None:
        """Whether `size` bytes could be taken beside `coming` that are on their way, with what may be removed for them. Raises StorageFull."""
        await self._removable_lack(size, coming)

    async def make_room(self, size: int, coming: int = 0) -> None:
        """Remove what is in the way of `size` bytes, the longest unused first; nothing if that would not be enough. Raises StorageFull."""
        lack, count = await self._removable_lack(size, coming), 0
        while lack > 0 and (gone := await self._store.remove_idle(self._ago(self._rules.grace), self._rules.keep, lack)):
            lack -= sum(blob.size for blob in gone)
            count += len(gone)
        if count:
            _log.info("%d blobs were removed to make room", count)

    async def sunset(self, digest: Digest) -> str | None:
        """When the blob will be removed if nobody asks for it again, as a `Sunset` header has it (BUD-01, RFC 8594); None: not by itself."""
        if not self._rules.idle:
            return None
        used = await self._store.last_use(digest, self._rules.keep)
        return None if used is None else formatdate(used + self._rules.idle, usegmt=True)

    async def _removable_lack(self, size: int, coming: int) -> int:
        """Bytes that have to go for `size` more, and can. Raises StorageFull if they cannot."""
        lack = await self._lack(size, coming)
        if lack > 0:
            idle = await self._store.idle_bytes(self._ago(self._rules.grace), self._rules.keep) if self._rules.store else 0
            if lack > idle:
                raise StorageFull(f"{size} bytes wanted, {max(0, size - lack)} free for blobs")
        return lack

    async def _lack(self, size: int, coming: int) -> int:
        """Bytes that have to go for `size` more."""
        lack = self._store.lack(size)
        if self._rules.store:
            lack = max(lack, await self._store.total() + coming + size - self._rules.store)
        return lack

    def _ago(self, seconds: int) -> UnixTime:
        return UnixTime(self._clock.now() - seconds)
