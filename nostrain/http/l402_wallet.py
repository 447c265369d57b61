"""`ports.tickets.TicketWallet` in files: one JSON file a round, replaced atomically. A preimage proves a payment, so only we may read it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import trio

from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.ports.tickets import Purchase
from nostrain.units import EventId, is_hex32


class FileWallet:
    """Purchases in `folder`, which is made when the first is saved. Its work is done in threads that cancellation does not interrupt."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self, announcement: EventId) -> Purchase | None:
        """See `TicketWallet.load`."""
        return await trio.to_thread.run_sync(self._load, self._path(announcement))

    async def save(self, purchase: Purchase) -> None:
        """See `TicketWallet.save`."""
        await trio.to_thread.run_sync(self._save, self._path(purchase.announcement), msgspec.json.encode(purchase))

    async def forget(self, announcement: EventId) -> None:
        """See `TicketWallet.forget`."""
        await trio.to_thread.run_sync(self._forget, self._path(announcement))

    def _path(self, announcement: EventId) -> Path:
        if not is_hex32(announcement):
            raise LocalProtocolError("wallet: a round is named by its announcement's id")
        return self._folder / f"{announcement}.json"

    @staticmethod
    def _load(path: Path) -> Purchase | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Purchase)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise Unavailable(f"wallet: {path.name} cannot be read: {error}") from error

    def _save(self, path: Path, data: bytes) -> None:
        beside = path.with_suffix(".new")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.rename(path)
            self._sync()
        except OSError as error:
            raise Unavailable(f"wallet: {path.name} cannot be written: {error.strerror}") from error

    def _forget(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            if self._folder.exists():
                self._sync()
        except OSError as error:
            raise Unavailable(f"wallet: {path.name} cannot be removed: {error.strerror}") from error

    def _sync(self) -> None:
        """Make creations, renames and removals in the folder durable."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
