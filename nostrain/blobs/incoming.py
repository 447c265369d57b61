"""A file on its way into the store: written and hashed in large steps, in a thread, while the next step comes; worth nothing until it is committed."""

from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.units import Digest

STEP: Final = 1 << 20
"""Bytes a thread writes or reads at a time: below 1 MiB the hop between threads costs more than the work."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class StorageFull(Unavailable):
    """There is no room for the file. Nothing that was stored is affected, and nothing of the new file is left."""


@contextmanager
def no_room() -> Iterator[None]:
    """Turn every form of "the disk is full" into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no space left for blobs: {error.strerror}") from error
        raise
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
            raise StorageFull("no space left for the index of blobs") from error
        raise


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write all of `data`, however many calls it takes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Incoming:
    """A temporary file and the SHA-256 of what was written to it. Made by `BlobStore.incoming`, which also removes it.

    `keep`: it may exist already, and is worth keeping when it is closed without having been committed.
    """

    def __init__(self, path: Path, limit: int, check_room: Callable[[int], None], *, keep: bool = False) -> None:
        self.path = path
        self.limit = limit
        self.keep = keep
        self.size = 0
        self.restarts = 0
        self._expected = 0
        self._check_room = check_room
        with no_room():
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | (0 if keep else os.O_EXCL), 0o600)
        self._hash = hashlib.sha256()
        self._buffer = bytearray()
        self._writing: trio.Event | None = None
        self._fault: BaseException | None = None

    @property
    def outstanding(self) -> int:
        """Bytes of free disk that this file has been promised and not yet used."""
        return max(0, self._expected - self.size)

    @property
    def expected(self) -> int:
        """The size that the file was announced to have; 0 if it was not."""
        return self._expected

    def expect(self, size: int) -> None:
        """Announce that the file will have `size` bytes. Raises StorageFull when they are not free."""
        self._expected = 0
        self._check_room(size - self.size)
        self._expected = size

    async def write(self, chunk: bytes) -> None:
        """Append `chunk`. Raises RemoteProtocolError, before anything of it is written, when the file would exceed `limit`; StorageFull.

        What is wrong with the disk may be raised by a later call. After a cancellation the file is whole up to some chunk and can only be restarted
        or closed.
        """
        if self.size + len(chunk) > self.limit:
            raise RemoteProtocolError("blob", f"longer than the {self.limit} bytes that were allowed")
        self.size += len(chunk)
        self._buffer += chunk
        if len(self._buffer) >= STEP:
            await self._settle()
            self._start()

    async def so_far(self) -> Digest:
        """The SHA-256 of what was written. Raises StorageFull."""
        await self._settle()
        await trio.to_thread.run_sync(self._flush)
        return Digest(self._hash.copy().hexdigest())

    async def resume(self) -> None:
        """Take up what the file holds, or forget it if that is more than `limit` or cannot be read. Raises StorageFull."""
        await trio.to_thread.run_sync(self._resume)

    async def restart(self) -> None:
        """Forget everything written so far."""
        await self.settled()
        self._fault = None
        self._buffer.clear()
        self._hash = hashlib.sha256()
        self.size = self._expected = 0
        self.restarts += 1
        await trio.to_thread.run_sync(self._truncate)

    async def settled(self) -> None:
        """Return when no thread is at work on the file; before it is closed. Not cancellable: it is a step that is written."""
        if self._writing is not None:
            with trio.CancelScope(shield=True):
                await self._writing.wait()

    async def finish(self) -> Digest:
        """Flush and fsync; the digest. Raises StorageFull."""
        await self._settle()
        return await trio.to_thread.run_sync(self._finish)

    async def _settle(self) -> None:
        await self.settled()
        if self._fault is not None:
            raise self._fault

    def _start(self) -> None:
        """Write and hash the buffer in a thread of trio's."""
        data, self._buffer = self._buffer, bytearray()
        self._writing, token = trio.Event(), trio.lowlevel.current_trio_token()
        trio.lowlevel.start_thread_soon(lambda: self._try_to_store(data), lambda _: token.run_sync_soon(self._written))

    def _written(self) -> None:
        assert self._writing is not None
        self._writing.set()
        self._writing = None

    def _try_to_store(self, data: bytearray) -> None:
        try:
            self._store(data)
        except BaseException as error:
            self._fault = error

    def _finish(self) -> Digest:
        self._flush()
        with no_room():
            os.fsync(self._fd)
        return Digest(self._hash.hexdigest())

    def close(self) -> None:
        """Close the descriptor and remove the temporary file, unless it was renamed into place or a later call can begin with it. Idempotent."""
        if self._fd >= 0:
            self.keep = self.keep and os.fstat(self._fd).st_size >= STEP
            os.close(self._fd)
            self._fd = -1
        if not self.keep:
            self.path.unlink(missing_ok=True)

    def _flush(self) -> None:
        data, self._buffer = self._buffer, bytearray()
        self._store(data)

    def _store(self, data: bytearray) -> None:
        with no_room():
            write_all(self._fd, data)
        self._hash.update(data)

    def _resume(self) -> None:
        size = os.fstat(self._fd).st_size
        try:
            while size <= self.limit and (step := os.read(self._fd, STEP)):
                self._hash.update(step)
                self.size += len(step)
        except OSError:
            size = self.limit + 1
        if size > self.limit:
            self._hash = hashlib.sha256()
            self.size = 0
            self._truncate()

    def _truncate(self) -> None:
        os.lseek(self._fd, 0, os.SEEK_SET)
        os.ftruncate(self._fd, 0)
