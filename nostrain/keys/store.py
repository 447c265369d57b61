"""The root secret of a node: 32 bytes in one file, from which every other secret is derived by a tagged hash.

The file `root.key` in the data folder holds 64 hex characters and is readable by its owner alone. Losing it loses the node's identity;
copying it to a second running node makes two nodes of one identity, which other participants treat as equivocation.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, NoReturn

from nostrain.crypto.points import InvalidScalar, scalar_from_bytes
from nostrain.errors import ConfigError
from nostrain.hashes import tagged_hash
from nostrain.units import is_hex32

ROOT_FILE: Final = "root.key"


class RootSecret:
    """32 secret bytes and what derives from them. Nothing that prints, formats or pickles an instance shows them."""

    __slots__ = ("_root",)

    def __init__(self, root: bytes) -> None:
        if len(root) != 32:
            raise ValueError(f"a root secret is 32 bytes, not {len(root)}")
        self._root = root

    def __repr__(self) -> str:
        return "RootSecret(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a RootSecret is not to be copied out of its process")

    def nostr_key(self) -> bytes:
        """Secret key that authors the node's events."""
        return self._key("nostrain/key/nostr")

    def oracle_key(self) -> bytes:
        """Secret key of the node's oracle."""
        return self._key("nostrain/key/oracle")

    def nonce_secret(self, generation: bytes) -> bytes:
        """PRF secret of the oracle's nonces. Another generation (`keys.oracle`) has unrelated nonces, even for the same event."""
        return tagged_hash("nostrain/key/nonces", self._root, generation)

    def chain_seed(self, run: str, length: int) -> bytes:
        """First link of the hash chain. `length` enters: a longer chain of the same seed would be known from the shorter one's links."""
        return tagged_hash("nostrain/key/chain", self._root, sha256(run.encode()).digest(), length.to_bytes(8, "big"))

    def ticket_key(self, token: bytes) -> bytes:
        """Root key of the L402 token of that id (32 bytes)."""
        return tagged_hash("nostrain/key/ticket", self._root, token)

    def _key(self, tag: str) -> bytes:
        for attempt in range(256):
            key = tagged_hash(tag, self._root, bytes([attempt]))
            with suppress(InvalidScalar):
                scalar_from_bytes(key)
                return key
        raise AssertionError("256 hashes in a row that are no secret key")


def open_root(folder: Path, draw: Callable[[int], bytes] = secrets.token_bytes) -> RootSecret:
    """The root secret in `folder`; made from 32 bytes of `draw` when there is none. Creation is atomic and never replaces a file.

    Raises ConfigError: the file can be read by others, is not a regular file or not a secret, or the folder cannot be used.
    """
    path = folder / ROOT_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _create(path, draw(32))
        return RootSecret(_read(path))
    except OSError as error:
        raise _unusable(path, f"it cannot be used ({error.strerror})", "Check the folder, its owner and the space left") from None


def _create(path: Path, root: bytes) -> None:
    """Write beside the final name, then link: whoever looks sees no file or a whole one, and an existing one wins."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    beside.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(root.hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def _read(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(path, "it is not a regular file", "Put the key file itself there")
        if status.st_mode & 0o077:
            raise _unusable(path, f"others can read it (mode {stat.S_IMODE(status.st_mode):04o})", "Run chmod 600 on it")
        text = file.read(66).decode("ascii", "replace").removesuffix("\n")
    if not is_hex32(text):
        raise _unusable(path, "it does not hold 64 lowercase hex characters", "Restore the file from your backup")
    return bytes.fromhex(text)


def sync_folder(folder: Path) -> None:
    """Make creations and renames in `folder` durable. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, reason: str, fix: str) -> ConfigError:
    return ConfigError("data_dir", str(path), reason, fix)
