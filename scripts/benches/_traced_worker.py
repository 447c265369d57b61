"""A `nostraind` that dials ports of this machine elsewhere and writes down what its effects took; `link.py` starts it.

    _traced_worker.py CONFIG TRACE CORE [FROM=TO ...]

TRACE gets a line of JSON an effect: begin and end on the machine's monotonic clock, kind, owner, name; after a job of the engine, processor seconds of
this process and of its engine so far; and a training's own milliseconds.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import _cpu
import trio


def detour(ports: dict[int, int]) -> None:
    """From now on every TCP connection to one of `ports` goes to the port beside it. Before anything of ours is imported."""
    dial = trio.open_tcp_stream

    async def dialled(host: str, port: int, **others: Any) -> trio.SocketStream:
        return await dial(host, ports.get(port, port), **others)

    trio.open_tcp_stream = dialled  # type: ignore[assignment]


def traced(trace: TextIO) -> Any:
    """The ordinary effect runner, written down."""
    from nostrain.core.effects import Compute
    from nostrain.daemon.runners import perform
    from nostrain.protocol.jobs import TrainResult

    async def runner(effect: Any, ports: Any) -> Any:
        begin = time.monotonic()
        outcome = await perform(effect, ports)
        line = {"begin": begin, "end": time.monotonic(), "kind": type(effect).__name__, "owner": effect.owner, "name": effect.name}
        if isinstance(effect, Compute):  # not at every effect: looking costs the daemon's time
            line |= {"daemon_cpu": time.process_time(), "engine_cpu": _cpu.of_children()}
        result = getattr(outcome, "result", None)
        if isinstance(result, TrainResult):
            line |= {"train_ms": result.train_ms, "encode_ms": result.encode_ms}
        trace.write(json.dumps(line) + "\n")
        trace.flush()
        return outcome

    return runner


def main() -> None:
    """Run until SIGTERM."""
    path, trace, core, *pairs = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    detour({int(one): int(other) for one, other in (pair.split("=") for pair in pairs)})
    from nostrain.config.load import load_config
    from nostrain.daemon.main import run, set_up_logging

    config = load_config(Path(path), (), os.environ)
    set_up_logging(config)
    with Path(trace).open("a") as lines:
        trio.run(run, config, traced(lines))


if __name__ == "__main__":
    main()
