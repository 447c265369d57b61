"""A Nostr relay on loopback: nostr-sdk's `LocalRelay` in a process of its own, because it lives on asyncio and Rust threads.

    python -m nostrain.devnet.relay --port-file FILE [--port N] [--db DIR]

When it serves, it writes `ws://127.0.0.1:PORT` to FILE (atomically) and prints the same line. It ends, with exit code 0, on SIGTERM or
SIGINT, when the pipe on its standard input is closed, or when its parent dies. Events are kept in memory, or with --db in an LMDB
database, and then survive a restart on the same --port.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import nostr_sdk

HOST: Final = "127.0.0.1"
NO_LIMIT: Final = 1_000_000
"""Requests and notes per minute and connection: the default of 60 notes is far below one round of a run."""

FILTER_LIMIT: Final = 5_000
CONNECTIONS: Final = 4_096
PARENT_POLL_S: Final = 1.0


async def _build(port: int | None, database: Path | None) -> nostr_sdk.LocalRelay:
    builder = nostr_sdk.LocalRelayBuilder().addr(HOST).max_connections(CONNECTIONS).max_filter_limit(FILTER_LIMIT)
    builder = builder.rate_limit(nostr_sdk.RateLimit(max_reqs=NO_LIMIT, notes_per_minute=NO_LIMIT))
    if port is not None:
        builder = builder.port(port)
    if database is not None:
        # The relay calls its database through Python, from threads of its own that know no event loop.
        nostr_sdk.uniffi_set_event_loop(asyncio.get_running_loop())
        builder = builder.database(await nostr_sdk.NostrLmdb.open(str(database)))
    return builder.build()


async def serve(port_file: Path, port: int | None, database: Path | None) -> None:
    """Run the relay until a signal, the end of standard input or the parent's death."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _watch_stdin(loop, stop)
    relay = await _build(port, database)
    await relay.run()
    url = f"ws://{HOST}:{str(await relay.url()).rstrip('/').rpartition(':')[2]}"
    _write_atomically(port_file, url)
    print(url, flush=True)
    parent = os.getppid()
    while not stop.is_set() and os.getppid() == parent:
        try:
            await asyncio.wait_for(stop.wait(), PARENT_POLL_S)
        except TimeoutError:
            continue
    relay.shutdown()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when whoever holds the other end of our standard input is gone. A terminal, a file or /dev/null says nothing about that."""
    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return

    def on_readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, on_readable)


def _write_atomically(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    partial.replace(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m nostrain.devnet.relay", description="A Nostr relay on loopback.")
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the relay's URL once it serves")
    parser.add_argument("--port", type=int, help="TCP port (default: a free one)")
    parser.add_argument("--db", type=Path, help="folder of an LMDB database (default: keep events in memory)")
    options = parser.parse_args(arguments)
    if options.db is not None:
        options.db.mkdir(parents=True, exist_ok=True)
    asyncio.run(serve(options.port_file, options.port, options.db))
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # not sys.exit: the relay's threads may call into the interpreter while it is being torn down, and crash
