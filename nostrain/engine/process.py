"""The engine port over a supervised process: one job at a time, a new process after every death (design section 3, Processes)."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import msgspec
import trio

from nostrain.engine.child import Child, default_command, engine_environment
from nostrain.engine.frames import Reply, Request, parse_reply_untrusted, request_frame
from nostrain.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.protocol.jobs import CalibrateJob, Job, JobResult, TrainJob

logger = logging.getLogger("nostrain.engine")

STARVED: Final = tuple(f"signal {int(number)}" for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS))
"""How a process ends that has too little memory: the kernel kills it; or a framework uses what malloc refused, or gives up (mlx does both)."""


class EngineSettings(msgspec.Struct, frozen=True):
    """How to run the engine. `command` empty: `python -m nostrain.learning` with `python`, or with ours if that is empty too.

    `arguments` are the engine's own: which framework, on which device. `micro_batch` is too, but halved when training was more than the machine could bear.
    """

    python: str = ""
    threads: int = 1
    job_timeout_s: float = 3600
    command: Sequence[str] = ()
    arguments: Sequence[str] = ()
    micro_batch: int = 0


class EngineProcess:
    """`ports.engine.Engine`. The process starts with the first job, or with `warm`, and is replaced after it died, hung or was cancelled."""

    def __init__(self, settings: EngineSettings, nursery: trio.Nursery, environment: Mapping[str, str]) -> None:
        self._settings, self._nursery = settings, nursery
        self._command = (*(settings.command or default_command(settings.python)), *settings.arguments)
        self._environment = engine_environment(environment, settings.threads)
        self._micro_batch = settings.micro_batch
        self._turn = trio.Lock()
        self._child: Child | None = None
        self._jobs = 0
        self.starts = 0
        """Processes started so far."""

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: EngineSettings, environment: Mapping[str, str] | None = None) -> AsyncIterator[EngineProcess]:
        """An engine for the length of the `async with`; no process of it is left after. `environment` is trimmed first; None is ours."""
        async with trio.open_nursery() as nursery:
            engine = cls(settings, nursery, os.environ if environment is None else environment)
            try:
                yield engine
            finally:
                await engine._drop()
                nursery.cancel_scope.cancel()

    async def warm(self) -> None:
        """Start the process now, so that the first job does not wait for its imports. Raises ConfigError when it cannot be started at all."""
        async with self._turn:
            await self._running()

    async def run(self, job: Job) -> JobResult:
        """Run `job` when its turn comes: first come, first served. As `ports.engine.Engine.run`; ConfigError as `warm`."""
        async with self._turn:
            child = await self._running()
            self._jobs += 1
            frame = request_frame(Request(self._jobs, job))
            try:
                with trio.fail_after(self._settings.job_timeout_s):
                    reply = parse_reply_untrusted(await child.exchange(frame))
                if reply.id != self._jobs:
                    raise RemoteProtocolError("engine reply", f"to job {reply.id} instead of {self._jobs}")
            except (EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
                how = await self._drop()
                if how.partition(";")[0] in STARVED and isinstance(job, TrainJob | CalibrateJob):
                    self._halve(job)
                raise Unavailable(f"the engine process died ({how})") from None
            except trio.TooSlowError:
                raise Unavailable(
                    f"the engine process did not answer within {self._settings.job_timeout_s} s ({await self._drop()})"
                ) from None
            except RemoteProtocolError as error:
                raise Unavailable(f"the engine process talks nonsense: {error} ({await self._drop()})") from None
            except BaseException:
                # Cancelled in the middle of a job: its reply would be taken for the next one's.
                await self._drop()
                raise
        return _result(reply)

    async def _running(self) -> Child:
        """The process, started if there is none. One that died between two jobs is replaced without a word to the caller: nothing was lost."""
        if self._child is not None and not self._child.alive:
            await self._drop()
        if self._child is None:
            sized = ("--micro-batch", str(self._micro_batch)) if self._micro_batch else ()
            self._child = await Child.start((*self._command, *sized), self._environment)
            self.starts += 1
            self._nursery.start_soon(self._child.forward_stderr)
        return self._child

    def _halve(self, job: TrainJob | CalibrateJob) -> None:
        """It ended while it trained as processes do whose memory runs out. Later processes take half as many windows at once."""
        before = min(size for size in (job.training.batch_size, self._micro_batch) if size)
        self._micro_batch = max(1, before // 2)
        logger.warning("the engine died while training %d windows at once: going on with %d", before, self._micro_batch)

    async def _drop(self) -> str:
        """Kill the process, if any; how it ended, with its last words."""
        child, self._child = self._child, None
        if child is None:
            return "not running"
        how = await child.kill()
        return f"{how}; last line: {child.last_line}" if child.last_line else how


def _result(reply: Reply) -> JobResult:
    if reply.error is not None:
        family = LocalProtocolError if reply.error.family == "local" else Unavailable
        raise family(f"engine: {reply.error.message}")
    assert reply.result is not None
    return reply.result
