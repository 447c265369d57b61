"""An engine process beside this one, spoken to in frames as the daemon does, without an event loop.

Two frameworks in one process would share libraries (`learning.blas`), and could compute otherwise than each by itself.
"""

from __future__ import annotations

import subprocess
import sys
from types import TracebackType
from typing import Self

import msgspec

from nostrain.errors import LocalProtocolError
from nostrain.learning.frames import Reply, read_frame, write_frame
from nostrain.protocol.engines import EngineKind
from nostrain.protocol.jobs import Job, JobResult

_replies = msgspec.msgpack.Decoder(Reply)


class EngineBeside:
    """`python -m nostrain.learning --engine KIND` on the CPU, from entering the context to leaving it."""

    def __init__(self, kind: EngineKind) -> None:
        command = [sys.executable, "-P", "-m", "nostrain.learning", "--engine", kind, "--device", "cpu"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._jobs = 0

    def run(self, job: Job) -> JobResult:
        """Run `job` there.

        Raises:
            LocalProtocolError: it failed, or the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs += 1
        try:
            write_frame(self._process.stdin, msgspec.msgpack.encode({"id": self._jobs, "job": job}))
        except BrokenPipeError:
            raise LocalProtocolError("the engine process ended") from None
        body = read_frame(self._process.stdout)
        if body is None:
            raise LocalProtocolError("the engine process ended")
        reply = _replies.decode(body)
        if reply.result is None:
            raise LocalProtocolError(reply.error.message if reply.error else "the engine process gave no result")
        return reply.result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close its standard input, at which it ends; kill it if it has not within a while."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
