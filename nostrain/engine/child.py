"""One engine process: started in a session of its own, spoken to in frames, killed with its whole group."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final

import trio

from nostrain.engine.frames import FrameReader
from nostrain.errors import ConfigError

logger = logging.getLogger("nostrain.engine")

MAX_LINE: Final = 4096
_LAST_WORDS_S: Final = 1
"""Only reached when something that left the group keeps standard error open."""

_PASSED_ON: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "CUDA_VISIBLE_DEVICES",
)
"""All that the engine needs of our environment. It decodes strangers' bytes: what it cannot see it cannot give away."""

_THREAD_VARIABLES: Final = (
    "NOSTRAIN_ENGINE_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def engine_environment(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """The environment of an engine process: a few variables of ours, its number of threads, and no way onto the network by accident."""
    kept = {name: environment[name] for name in _PASSED_ON if name in environment}
    limits = dict.fromkeys(_THREAD_VARIABLES, str(threads))
    return kept | limits | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


class Child:
    """A running engine process and the three pipes to it.

    It ends when its standard input does, so it does not outlive a daemon that was killed; being in a group of its own, it can be killed with
    whatever it started, and a Ctrl-C meant for the daemon does not reach it.
    """

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._stdin, self._stdout, self._stderr = process, process.stdin, process.stdout, process.stderr
        self._frames = FrameReader(process.stdout)
        self._silent = trio.Event()
        self.last_line = ""
        """The last line it wrote on standard error: usually why it died."""

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str]) -> Child:
        """Start `command`. Raises ConfigError when there is no such program."""
        try:
            process = await trio.lowlevel.open_process(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ConfigError(
                "engine.python", command[0], f"cannot be started: {error.strerror}", "Name a Python that has the extra `torch`"
            ) from None
        logger.info("engine process %d started", process.pid)
        return cls(process)

    @property
    def pid(self) -> int:
        """Process id, which is its group's too."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs. Looks without reaping: until `kill` has waited for it, nobody else can get its process id."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    async def exchange(self, frame: bytes) -> bytes:
        """Send one frame, receive one. Raises EOFError or trio.BrokenResourceError when the process is gone, RemoteProtocolError for a bad frame."""
        await self._stdin.send_all(frame)
        return await self._frames.read()

    async def forward_stderr(self) -> None:
        """Log what it writes on standard error, line by line, until it ends."""
        rest = b""
        try:
            async with self._stderr:
                async for chunk in self._stderr:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._log(line)
                    if len(rest) > MAX_LINE:
                        self._log(rest)
                        rest = b""
        finally:
            self._log(rest)
            self._silent.set()

    def _log(self, line: bytes) -> None:
        text = "".join(char if char.isprintable() else " " for char in line[:MAX_LINE].decode(errors="replace")).strip()
        if text:
            self.last_line = text
            logger.warning("engine process %d: %s", self.pid, text)

    async def kill(self) -> str:
        """Kill the group, wait for the process and its last words, and say how it ended. To be called once.

        Not cancellable: it is over in milliseconds, and nothing may survive it.
        """
        with trio.CancelScope(shield=True):
            # Also when the process itself has ended: whatever it started may still be there.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            status = await self._process.wait()
            for pipe in (self._stdin, self._stdout):
                await pipe.aclose()
            with trio.move_on_after(_LAST_WORDS_S):
                await self._silent.wait()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        logger.info("engine process %d ended: %s", self.pid, how)
        return how


def default_command(python: str) -> tuple[str, ...]:
    """How the engine is started; `python` empty means ours. `-P` keeps the working directory, which holds strangers' files, off `sys.path`."""
    return (python or sys.executable, "-P", "-m", "nostrain.learning")
