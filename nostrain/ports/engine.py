"""The engine: the process that holds tensors. Jobs and results are plain data; arrays pass as file paths (design section 3, Processes)."""

from __future__ import annotations

from typing import Protocol

from nostrain.protocol.jobs import Job, JobResult


class Engine(Protocol):
    """Runs one job at a time, in order of arrival."""

    async def run(self, job: Job) -> JobResult:
        """Run `job` to its end. Jobs are pure functions of their fields and of the files they name, so running one twice is safe.

        A bad blob in a job is reported in the result, not raised.

        Raises:
            Unavailable: the engine process died or stopped answering; it has been replaced and the job may be run again.
            LocalProtocolError: the engine says that the job itself is wrong.

        Cancellation kills the engine process; the next call starts a fresh one.
        """
        ...
