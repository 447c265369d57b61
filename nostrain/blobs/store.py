"""The folder of blobs: `<root>/<first two digits>/<sha256>`, each file complete, verified and read-only.

A blob is written to `<root>/tmp`, hashed on the way, fsynced, renamed, its folder fsynced, and only then is its row added to the index:
a crash at any point leaves a file without an owner at worst, never a wrong or half one. One process owns a store.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import trio

from nostrain.blobs.incoming import Incoming, StorageFull, no_room
from nostrain.blobs.index import Stored, Upload, UploadIndex, found
from nostrain.blobs.linking import link_or_copy
from nostrain.blobs.parts import PartLimits, Parts
from nostrain.disk import fsync_folder
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.ports.clock import Clock
from nostrain.units import Digest, Pubkey, UnixTime, is_hex32

T = TypeVar("T")

_BATCH: Final = 64
"""Blobs that are removed in one go: nothing else can be done in the index meanwhile."""

LOCAL: Final = Pubkey("")
"""Owner of what this node stored for itself: no request from outside can delete it."""


def place_of(root: Path, digest: Digest) -> Path:
    """Where a store in the folder `root` keeps a blob. Raises LocalProtocolError unless `digest` is a checked digest."""
    if not is_hex32(digest):
        raise LocalProtocolError(f"{digest!r} is not a SHA-256 in lowercase hex")
    return root / digest[:2] / digest


class DigestMismatch(RemoteProtocolError):
    """The bytes are not the blob that they were said to be."""


class BlobStore:
    """Content-addressed files under one folder."""

    def __init__(self, root: Path, clock: Clock, *, reserve: int = 64 << 20, parts: PartLimits | None = None) -> None:
        """Open or create the store and remove what a crash left half-written, but for `parts` of downloads. Blocking.

        `reserve`: bytes of free disk never used.
        """
        self._root = root
        self._tmp = root / "tmp"
        self._clock = clock
        self.reserve = reserve
        self._arriving: set[Incoming] = set()
        self._counter = count()
        self._lock = threading.Lock()
        self._used: dict[Digest, UnixTime] = {}
        self._tmp.mkdir(parents=True, exist_ok=True)
        for leftover in self._tmp.iterdir():
            leftover.unlink()
        self._parts = Parts(root / "parts", clock, parts or PartLimits())
        self._index = UploadIndex(root / "index.sqlite")

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def path(self, digest: Digest) -> Path | None:
        """The file of `digest`, or None if it is not here. Raises LocalProtocolError unless `digest` is a checked digest."""
        path = place_of(self._root, digest)
        return path if path.is_file() else None

    @asynccontextmanager
    async def incoming(self, limit: int, resume: Digest | None = None) -> AsyncIterator[Incoming]:
        """A new file of at most `limit` bytes; removed on exit unless committed. Raises StorageFull.

        With `resume` it begins with what came of that blob before, if anything did, and what it has in the end is kept for the next time, unless
        the disk is full.
        """
        part = None if resume is None else self._parts.take(resume)
        try:
            incoming = Incoming(part or self._temporary(), limit, self._check_room, keep=part is not None)
            self._arriving.add(incoming)
            try:
                if part is not None:
                    await incoming.resume()
                yield incoming
            except StorageFull:
                incoming.keep = False
                raise
            finally:
                await incoming.settled()
                self._arriving.discard(incoming)
                incoming.close()
        finally:
            if part is not None and resume is not None:
                self._parts.give_back(resume)

    async def commit(self, incoming: Incoming, digest: Digest, owner: Pubkey = LOCAL) -> bool:
        """Make the file the blob `digest`, stored by `owner`; whether it is new here. Raises DigestMismatch, StorageFull."""
        sha256 = await incoming.finish()
        if sha256 != digest:
            raise DigestMismatch("blob", f"has the SHA-256 {sha256}, not {digest}")
        return await trio.to_thread.run_sync(self._install, incoming.path, digest, owner)

    async def put_stream(self, chunks: AsyncIterable[bytes], digest: Digest, size: int, owner: Pubkey = LOCAL) -> bool:
        """Store the `size` bytes of `chunks` as `digest`; whether it is new here.

        Raises RemoteProtocolError (another size), DigestMismatch, StorageFull; on these and on cancellation nothing is left behind.
        """
        async with self.incoming(size) as incoming:
            incoming.expect(size)
            async for chunk in chunks:
                await incoming.write(chunk)
            if incoming.size != size:
                raise RemoteProtocolError("blob", f"ended after {incoming.size} of {size} bytes")
            return await self.commit(incoming, digest, owner)

    async def adopt(self, source: Path, digest: Digest) -> Path:
        """Take over the local file `source`, whose SHA-256 is `digest`, as our own; the stored file.

        A file without write permission is taken as sealed and hard-linked, any other is copied: its writer may still hold it open.
        Raises LocalProtocolError if the file is not that blob, StorageFull.
        """
        return await trio.to_thread.run_sync(self._adopt, source, digest)

    async def claim(self, digest: Digest, owner: Pubkey) -> Upload | None:
        """Add `owner` to the owners of a blob that is here; its row, or None if the blob is not here."""
        return await self._alone(partial(self._claim, digest, owner))

    async def delete(self, digest: Digest, owner: Pubkey = LOCAL) -> bool:
        """Withdraw `owner` from the blob and remove the file with its last owner; whether `owner` had it."""
        return await self._alone(partial(self._delete, digest, owner))

    async def discard(self, digest: Digest, owners: Sequence[Pubkey]) -> None:
        """Withdraw `owners` from the blob, and remove the file unless somebody else has stored it. Idempotent. Raises StorageFull."""
        await self._alone(partial(self._discard, digest, owners))

    async def usage(self, owner: Pubkey) -> int:
        """Bytes that `owner` has stored and that are not our own as well: what belongs to a run is nobody's burden."""
        return await self._alone(partial(self._index.usage, owner, LOCAL))

    async def uploads(self, owner: Pubkey, after: Digest | None, limit: int) -> list[Upload]:
        """What `owner` has stored, newest first, after the blob `after`."""
        return await self._alone(partial(self._index.uploads, owner, after, limit))

    def touch(self, digest: Digest) -> None:
        """Note that the blob was asked for. It is written down with the next `note_uses` or removal: a crash forgets the last ones."""
        self._used[digest] = self._clock.now()

    async def note_uses(self) -> None:
        """Write down which blobs were asked for. Raises StorageFull."""
        times, self._used = self._used, {}
        try:
            await self._alone(partial(self._index.used, times))
        except StorageFull:
            self._used = times | self._used
            raise

    async def last_use(self, digest: Digest, keep: Collection[Pubkey]) -> UnixTime | None:
        """When the blob was last uploaded or asked for; None if one of `keep` has stored it."""
        noted = self._used.get(digest, UnixTime(0))
        used = await self._alone(partial(self._index.last_use, digest, keep))
        return None if used is None else max(used, noted)

    async def total(self) -> int:
        """Bytes of all blobs."""
        return await self._alone(self._index.total)

    async def idle_bytes(self, before: UnixTime, keep: Collection[Pubkey]) -> int:
        """Bytes of the blobs that `remove_idle` would remove. Raises StorageFull."""
        await self.note_uses()
        return await self._alone(partial(self._index.idle_bytes, before, keep))

    async def remove_idle(self, before: UnixTime, keep: Collection[Pubkey], enough: float) -> list[Stored]:
        """Remove blobs that were last used before `before` and that none of `keep` has stored, the longest unused first, until `enough` bytes are
        gone, or so many blobs that others should have their turn; those that were. Raises StorageFull, OSError.
        """
        await self.note_uses()
        return await self._alone(partial(self._remove_idle, before, keep, enough))

    async def take_stock(self) -> tuple[int, int]:
        """Compare index and files: how many files it did not know, because a crash came in between or somebody put them there, and how many of its
        blobs have none. The former count as last used when they were written. Raises OSError, StorageFull.
        """
        return await self._alone(lambda: self._index.correct(found(self._root)))

    def lack(self, wanted: int) -> int:
        """Bytes that have to be freed on the disk for `wanted` more than what was promised to others, when parts have gone; negative: none."""
        return self._short_of(wanted) - self._parts.idle_bytes()

    async def _alone(self, work: Callable[[], T]) -> T:
        def locked() -> T:
            with self._lock:
                return work()

        return await trio.to_thread.run_sync(locked)

    def _check_room(self, wanted: int) -> None:
        lack = self._short_of(wanted)
        if lack > 0:
            self._parts.make_way(lack)
            lack = self._short_of(wanted)
        if lack > 0:
            raise StorageFull(f"{wanted} bytes wanted, {max(0, wanted - lack)} free for blobs")

    def _short_of(self, wanted: int) -> int:
        promised = sum(incoming.outstanding for incoming in tuple(self._arriving))
        return wanted - (shutil.disk_usage(self._tmp).free - promised - self.reserve)

    def _temporary(self) -> Path:
        return self._tmp / f"{next(self._counter)}.part"

    def _install(self, temporary: Path, digest: Digest, owner: Pubkey) -> bool:
        """Rename a complete, fsynced file into place and add its row; both or neither."""
        place = place_of(self._root, digest)
        with self._lock, no_room():
            new = not place.is_file()
            if new:
                if not place.parent.is_dir():
                    place.parent.mkdir()
                    fsync_folder(self._root)
                temporary.chmod(0o444)
                temporary.replace(place)
            try:
                if new:
                    fsync_folder(place.parent)
                self._index.add(Upload(owner, digest, place.stat().st_size, self._clock.now()))
            except BaseException:
                if new:
                    place.unlink()
                raise
            return new

    def _adopt(self, source: Path, digest: Digest) -> Path:
        place = place_of(self._root, digest)
        with self._lock:
            if self._claim(digest, LOCAL) is not None:
                return place
        temporary = self._temporary()
        try:
            with no_room():
                sha256 = link_or_copy(source, temporary, self._check_room)
            if sha256 != digest:
                raise LocalProtocolError(f"{source} has the SHA-256 {sha256}, not {digest}")
            self._install(temporary, digest, LOCAL)
        finally:
            temporary.unlink(missing_ok=True)
        return place

    def _claim(self, digest: Digest, owner: Pubkey) -> Upload | None:
        try:
            size = place_of(self._root, digest).stat().st_size
        except FileNotFoundError:
            return None
        return self._index.add(Upload(owner, digest, size, self._clock.now()))

    def _delete(self, digest: Digest, owner: Pubkey) -> bool:
        if not self._index.remove(owner, digest):
            return False
        self._discard(digest, ())
        return True

    def _discard(self, digest: Digest, owners: Sequence[Pubkey]) -> None:
        for owner in owners:
            self._index.remove(owner, digest)
        if not self._index.wanted(digest):
            self._index.forget([digest])
            place_of(self._root, digest).unlink(missing_ok=True)

    def _remove_idle(self, before: UnixTime, keep: Collection[Pubkey], enough: float) -> list[Stored]:
        gone: list[Stored] = []
        for blob in self._index.idle(before, keep, _BATCH):
            if sum(one.size for one in gone) >= enough:
                break
            gone.append(blob)
        self._index.forget([blob.digest for blob in gone])
        for blob in gone:
            place_of(self._root, blob.digest).unlink(missing_ok=True)
        return gone
