"""The two processes of the plugin: whether the other one lives, and starting it again.

Each holds an exclusive lock (`flock`) on a file of its own as long as it lives: the kernel lets go of it at the instant of its death, however that
came. The file says which process it is, and whether it went because lightningd asked it to: only one that did not is started again, by lightningd's
`plugin start`. lightningd itself never restarts a plugin.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from nostrain.errors import LocalProtocolError

TAKE_S: Final = 3.0
"""How long a process waits for its lock: its predecessor may be dying, its partner looking."""
LOOK_S: Final = 0.05
PAUSE_S: Final = 0.25
"""Between the other one's death and its restart: when lightningd itself goes, both die within this time."""
GRACE_S: Final = 1.0
"""What lightningd has to start both by itself."""
MAX_PAUSE_S: Final = 60.0


class Presence:
    """This process's own lock. Held until the process ends."""

    def __init__(self, path: Path, instance: str) -> None:
        self._path, self._instance = path, instance
        self._file = -1

    def take(self) -> None:
        """Raises LocalProtocolError when another process has it and keeps it."""
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        end = time.monotonic() + TAKE_S
        while not _locked(self._file, fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise LocalProtocolError(f"{self._path} is locked: this process runs already")
            time.sleep(LOOK_S)
        self._write(stopped=False)

    def leave(self) -> None:
        """Say that this process ends because it was told to."""
        self._write(stopped=True)

    def _write(self, *, stopped: bool) -> None:
        text = json.dumps({"instance": self._instance, "stopped": stopped}).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text, 0)


class Partner:
    """The other process, watched from a thread. `start` has lightningd start it, and raises OSError when that did not work (yet)."""

    def __init__(self, path: Path, start: Callable[[], None], log: Callable[[str, str], None], *, always: bool) -> None:
        self._path, self._start, self._log, self._always = path, start, log, always
        self._instance: str | None = None

    def alive(self) -> frozenset[str]:
        """The instance that lives; a look at the lock."""
        with suppress(OSError):
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                # Shared: two threads that look must not take each other for the partner.
                if not _locked(file, fcntl.LOCK_SH):
                    return frozenset({_read(file)[0]})
            finally:
                os.close(file)
        return frozenset()

    def watch(self) -> None:
        """Runs for ever in a thread of its own. `always`: at the beginning the other one is started even if it was told to go, once lightningd had
        time to do that by itself."""
        threading.Thread(target=self._watch, name="partner", daemon=True).start()

    def _watch(self) -> None:
        wanted = self._wait_for(GRACE_S) or self._always or not self._was_stopped()
        while True:
            if wanted:
                self._bring_back()
            while not self.alive():
                time.sleep(PAUSE_S)
            self._wait_for_death()
            wanted = not self._was_stopped()
            self._log("unusual" if wanted else "info", f"{self._path.stem} {'died' if wanted else 'was stopped'}")
            time.sleep(PAUSE_S)

    def _bring_back(self) -> None:
        pause = PAUSE_S
        while not self.alive():
            try:
                self._start()
            except OSError as error:
                self._log("info", f"{self._path.stem} is not started yet: {error}")
                if self._wait_for(pause):
                    return
                pause = min(2 * pause, MAX_PAUSE_S)
            else:
                self._log("info", f"{self._path.stem} was started")
                self._wait_for(GRACE_S)

    def _wait_for(self, seconds: float) -> bool:
        """Whether it is alive within that time."""
        end = time.monotonic() + seconds
        while not self.alive():
            if time.monotonic() > end:
                return False
            time.sleep(LOOK_S)
        return True

    def _wait_for_death(self) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
        finally:
            os.close(file)

    def _was_stopped(self) -> bool:
        with suppress(OSError):
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return _read(file)[1]
            finally:
                os.close(file)
        return False


def _locked(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: int) -> tuple[str, bool]:
    """Instance, and whether it was told to go; what is not readable was torn by a death."""
    try:
        said = json.loads(os.pread(file, 4096, 0))
        return str(said["instance"]), said["stopped"] is True
    except (ValueError, KeyError, TypeError):
        return "", False
