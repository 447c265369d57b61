"""Taking over a local file: hard-linked if it is sealed, else copied."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nostrain.blobs.incoming import STEP, write_all

_UNLINKABLE: Final = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP})
"""Why a hard link cannot be made: another file system, one without links or one that protects them, too many links."""


def link_or_copy(source: Path, temporary: Path, check_room: Callable[[int], None]) -> str:
    """Put `source` at `temporary`, durably; its SHA-256. Blocking. Raises OSError, and what `check_room` does when it would have to be copied."""
    status = source.stat()
    if not status.st_mode & 0o222:
        try:
            os.link(source, temporary)
        except OSError as error:
            if error.errno not in _UNLINKABLE:
                raise
        else:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
                return hashlib.file_digest(file, "sha256").hexdigest()
    check_room(status.st_size)
    return _copy(source, temporary)


def _copy(source: Path, target: Path) -> str:
    """Copy, hash and fsync; the digest."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("xb", buffering=0) as writer:
        while step := reader.read(STEP):
            write_all(writer.fileno(), step)
            digest.update(step)
        os.fsync(writer.fileno())
    return digest.hexdigest()
