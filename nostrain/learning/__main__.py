"""`python -m nostrain.learning [--engine KIND] [--device DEVICE] …`: the engine process. One job at a time from stdin, its result to stdout, until stdin closes.

Nothing here opens a socket or reads a key. Anything that prints goes to stderr: stdout carries frames only.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, BinaryIO, get_args

import msgspec

from nostrain.errors import LocalProtocolError
from nostrain.learning.blas import prepare_process
from nostrain.learning.engines.base import EngineOptions
from nostrain.learning.frames import Failure, Reply, Request, read_frame, write_frame
from nostrain.protocol.engines import Device, EngineKind, Precision
from nostrain.protocol.jobs import Job

if TYPE_CHECKING:
    from nostrain.learning.dispatch import JobRunner

_NICE = 5
_requests = msgspec.msgpack.Decoder(Request)
_jobs = msgspec.msgpack.Decoder(Job)


def main() -> int:
    """Serve until stdin closes; the exit status, 2 for a wrong command line. A broken frame ends the process with 1: the daemon, which wrote it, starts a fresh one."""
    options = _options(sys.argv[1:])
    _settle()
    if (advice := prepare_process(options.kind)) is not None:
        print(f"engine: {advice}", file=sys.stderr)
    from nostrain.learning.adoption import Adoption  # numpy reads the number of threads when it is imported
    from nostrain.learning.dispatch import JobRunner

    runner, adoption = JobRunner(options), Adoption()
    try:
        with _take_stdout() as frames:
            while (body := read_frame(sys.stdin.buffer)) is not None:
                write_frame(frames, msgspec.msgpack.encode(answer(body, runner)))
                adoption.look()
    except (LocalProtocolError, msgspec.MsgspecError) as error:
        print(f"engine: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0  # the daemon is gone: what was written stays, nobody waits for the reply
    return 0


def answer(body: bytes, runner: JobRunner) -> Reply:
    """Run the job in one frame; every failure of the job becomes a reply.

    Raises:
        msgspec.MsgspecError: the frame has no readable id, so nobody could match a reply.
    """
    request = _requests.decode(body)
    try:
        return Reply(request.id, result=runner.run(_jobs.decode(request.job)))
    except (OSError, MemoryError) as error:
        return Reply(request.id, error=Failure("unavailable", f"{type(error).__name__}: {error}"))
    except Exception as error:
        return Reply(request.id, error=Failure("local", f"{type(error).__name__}: {error}"))


def _options(arguments: list[str]) -> EngineOptions:
    parser = argparse.ArgumentParser(
        prog="python -m nostrain.learning", description="The engine process: jobs on stdin, results on stdout."
    )
    parser.add_argument("--engine", dest="kind", choices=get_args(EngineKind), default=EngineOptions().kind)
    parser.add_argument("--device", choices=get_args(Device), default=EngineOptions().device)
    parser.add_argument("--precision", choices=get_args(Precision), default=EngineOptions().precision)
    parser.add_argument("--micro-batch", type=int, default=EngineOptions().micro_batch)
    parser.add_argument("--memory-mb", type=int, default=EngineOptions().memory_mb)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true")
    return EngineOptions(**vars(parser.parse_args(arguments)))


def _take_stdout() -> BinaryIO:
    """Keep the real stdout for frames and let file descriptor 1 lead to stderr, for C libraries too."""
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return frames


def _settle() -> None:
    """Run below the daemons in priority, offline, with one thread unless told otherwise; Ctrl-C is the daemon's to act on."""
    os.nice(_NICE)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threads = os.environ.setdefault("NOSTRAIN_ENGINE_THREADS", "1")
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = threads
    os.environ["HF_HUB_OFFLINE"] = "1"


if __name__ == "__main__":
    sys.exit(main())
