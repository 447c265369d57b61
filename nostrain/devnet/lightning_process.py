"""What the processes of both Lightning networks, simnet and regtest, have in common: options, sockets, the ready file, and when they end."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from nostrain.devnet.simnet.nodes import Faults
from nostrain.devnet.simnet.rpc import Method, serve_client
from nostrain.units import Msat

BACKLOG: Final = 128
PARENT_S: Final = 1.0
_NODE: Final = re.compile(r"([A-Za-z0-9_.-]{1,64})=([0-9]{1,18})")


def options_of(kind: str, description: str) -> argparse.ArgumentParser:
    """The options that `python -m nostrain.devnet.KIND` has whatever its kind."""
    parser = argparse.ArgumentParser(prog=f"python -m nostrain.devnet.{kind}", description=description)
    parser.add_argument("--dir", type=Path, required=True, help=f"folder of everything: DIR/NAME/lightning-rpc and DIR/{kind}-rpc")
    parser.add_argument("--nodes", type=parse_nodes, required=True, help="NAME=MSAT,…; the first is the hub")
    parser.add_argument("--block-seconds", type=float, default=0, help=f"a block every N seconds (default: only on {kind}-mine)")
    parser.add_argument("--ready-file", type=Path, help="where to write the control socket's path once everything is open")
    return parser


def parse_nodes(text: str) -> dict[str, Msat]:
    """`name=msat,…`, two at least. Raises argparse's error."""
    funds: dict[str, Msat] = {}
    for item in text.split(","):
        matched = _NODE.fullmatch(item)
        if matched is None or matched[1] in funds:
            raise argparse.ArgumentTypeError(f"{item!r} is not NAME=MSAT, or the name came before")
        funds[matched[1]] = Msat(int(matched[2]))
    if len(funds) < 2:
        raise argparse.ArgumentTypeError("a network needs two nodes")
    return funds


@asynccontextmanager
async def until_told() -> AsyncIterator[None]:
    """Cancels its body at SIGTERM or SIGINT, and when the process that started us is gone."""
    async with trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            nursery.start_soon(_stop_on_signal, signals, nursery.cancel_scope)
            nursery.start_soon(_stop_with_parent, nursery.cancel_scope)
            yield
            nursery.cancel_scope.cancel()


async def _stop_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _stop_with_parent(scope: trio.CancelScope) -> None:
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - there is no event for it
        await trio.sleep(PARENT_S)
    scope.cancel()


async def listen(
    path: Path, methods: Mapping[str, Method], faults: Faults, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve one Unix socket, of mode 0600 and in place of whatever is there, until cancelled; then remove it."""

    async def handle(stream: trio.SocketStream) -> None:
        await serve_client(stream, methods, faults)

    listener = trio.SocketListener(_bind(path))
    try:
        async with trio.open_nursery() as nursery:
            task_status.started()
            await trio.serve_listeners(handle, [listener], handler_nursery=nursery)
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - one system call, and we are leaving


def _bind(path: Path) -> trio.socket.SocketType:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)
    listening.listen(BACKLOG)
    return trio.socket.from_stdlib_socket(listening)


def announce(ready_file: Path | None, control: Path) -> None:
    """Say that everything is open: the control socket's path into `ready_file`, all of it at once."""
    if ready_file is not None:
        partial = ready_file.with_name(f"{ready_file.name}.partial")
        partial.write_text(str(control))
        partial.replace(ready_file)
