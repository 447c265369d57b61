"""One writer for a journal: a lock file held for the life of the process, released by the kernel however the process ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from nostrain.errors import ConfigError


class WriterLock:
    """An exclusive `flock` on `path`. The file stays behind; only the lock on it means anything."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises ConfigError when another process, or another journal of this one, holds it; OSError if `path` cannot be opened."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._file)
            reason = f"in use by another nostraind (process {holder})"
            raise ConfigError("data_dir", str(path.parent), reason, "Stop that one, or give this daemon a data_dir of its own") from None
        # The process id is for people; on a full disk the lock works without it.
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next writer in. Calling it twice is harmless."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
