"""Our purchases in files: one JSON file each, replaced atomically. A preimage proves a payment, so only we may read them."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import msgspec
import trio

from nostrain.disk import fsync_folder
from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.ports.tickets import Purchase
from nostrain.ports.tolls import Errand, TollPurchase
from nostrain.units import EventId, is_hex32

T = TypeVar("T", bound=msgspec.Struct)


class _Files:
    """JSON files in `folder`, which is made when the first is saved. Work is done in threads that cancellation does not interrupt.

    Everything raises Unavailable: nothing was changed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def load(self, name: str, kind: type[T]) -> T | None:
        return await trio.to_thread.run_sync(self._load, self._folder / name, kind)

    async def save(self, name: str, value: msgspec.Struct) -> None:
        await trio.to_thread.run_sync(self._save, self._folder / name, msgspec.json.encode(value))

    async def forget(self, name: str) -> None:
        await trio.to_thread.run_sync(self._forget, self._folder / name)

    @staticmethod
    def _load(path: Path, kind: type[T]) -> T | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
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
            fsync_folder(self._folder)
        except OSError as error:
            raise Unavailable(f"wallet: {path.name} cannot be written: {error.strerror}") from error

    def _forget(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            if self._folder.exists():
                fsync_folder(self._folder)
        except OSError as error:
            raise Unavailable(f"wallet: {path.name} cannot be removed: {error.strerror}") from error


class FileWallet:
    """`ports.tickets.TicketWallet`: `<folder>/<announcement id>.json`."""

    def __init__(self, folder: Path) -> None:
        self._files = _Files(folder)

    async def load(self, announcement: EventId) -> Purchase | None:
        """See `TicketWallet.load`."""
        return await self._files.load(self._name(announcement), Purchase)

    async def save(self, purchase: Purchase) -> None:
        """See `TicketWallet.save`."""
        await self._files.save(self._name(purchase.announcement), purchase)

    async def forget(self, announcement: EventId) -> None:
        """See `TicketWallet.forget`."""
        await self._files.forget(self._name(announcement))

    @staticmethod
    def _name(announcement: EventId) -> str:
        if not is_hex32(announcement):
            raise LocalProtocolError("wallet: a round is named by its announcement's id")
        return f"{announcement}.json"


class TollFiles:
    """`ports.tolls.TollWallet`: `<folder>/<hash of the errand>.json`."""

    def __init__(self, folder: Path) -> None:
        self._files = _Files(folder)

    async def load(self, errand: Errand) -> TollPurchase | None:
        """See `TollWallet.load`."""
        return await self._files.load(self._name(errand), TollPurchase)

    async def save(self, purchase: TollPurchase) -> None:
        """See `TollWallet.save`."""
        await self._files.save(self._name(purchase.errand), purchase)

    async def forget(self, errand: Errand) -> None:
        """See `TollWallet.forget`."""
        await self._files.forget(self._name(errand))

    @staticmethod
    def _name(errand: Errand) -> str:
        return f"{sha256(msgspec.json.encode(errand)).hexdigest()}.json"
