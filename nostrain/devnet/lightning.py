"""The Lightning network of a devnet that pays: the simnet, or real nodes on regtest, in a process of its own with the coordinator in the middle."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import trio

from nostrain.devnet.layout import LightningKind, Options, Role, roles_of
from nostrain.devnet.processes import POLL_S, Child, Processes
from nostrain.devnet.purse import Purse
from nostrain.devnet.regtest.plugins import write_hold_plugin
from nostrain.errors import Unavailable

HUB_MSAT: Final = 50_000_000
"""What the coordinator has in its channel with each of the others. lightningd keeps about 4,000 sat of it for the commitment transaction."""
WORKER_MSAT: Final = 5_000_000
"""What a worker has for fees, above the channel's reserve of 1 % of its capacity."""
VALIDATOR_MSAT: Final = 0
"""What a validator has: it only receives."""
BLOCK_S: Final = 10
START_S: Final[dict[LightningKind, float]] = {"simnet": 30, "regtest": 300}
"""Real nodes mine a hundred blocks and open their channels before anything else."""
STOP_S: Final = 60.0
"""Real nodes are stopped one by one, in good order."""


class Lightning:
    """A running network: its purse, and its process. `complaints` are there once it is stopped."""

    def __init__(self, child: Child, log: Path, purse: Purse) -> None:
        self.child, self.log, self.purse = child, log, purse
        self.complaints: list[str] = []
        """What went wrong while it stopped: lines of nodes' logs that say that something is broken, among them."""


@asynccontextmanager
async def open_lightning(root: Path, options: Options) -> AsyncIterator[Lightning]:
    """Start the network, with open channels; stop it when the context is left, also by an error. Raises Unavailable when it does not come up."""
    kind, processes = options.lightning, Processes()
    log = root / f"{kind}.log"
    try:
        child = await processes.start(kind, command(root, options), log)
        lightning = Lightning(child, log, await wait_for(child, root / f"{kind}.ready", log, START_S[kind]))
        lightning.purse.before = await lightning.purse.balances()
        try:
            yield lightning
        finally:
            if await processes.stop(kind, STOP_S) != 0:
                lightning.complaints = [f"the {kind} {child.ending}; its log says:", *log.read_text(errors="replace").splitlines()]
    finally:
        if kind in processes.children:
            await processes.stop(kind, STOP_S)


def command(root: Path, options: Options) -> tuple[str, ...]:
    """The command line of the network's process. Makes its folder."""
    kind = options.lightning
    folder = root / kind
    folder.mkdir(exist_ok=True)
    funds: dict[Role, int] = {
        "coordinator": HUB_MSAT * (options.workers + options.validators),
        "worker": WORKER_MSAT,
        "validator": VALIDATOR_MSAT,
    }
    nodes = ",".join(f"{name}={funds[role]}" for name, role in roles_of(options))
    arguments = ("--dir", str(folder), "--nodes", nodes, "--block-seconds", str(BLOCK_S), "--ready-file", str(root / f"{kind}.ready"))
    plugin = ("--plugin", str(write_hold_plugin(folder))) if kind == "regtest" else ()
    return (sys.executable, "-m", f"nostrain.devnet.{kind}", *arguments, *plugin)


async def wait_for(child: Child, ready: Path, log: Path, limit_s: float) -> Purse:
    """The purse, once the network's process says that it is ready. Raises Unavailable."""
    with trio.move_on_after(limit_s):
        while child.exit_code is None:
            if ready.exists():  # noqa: ASYNC240 - one system call
                return Purse(Path(ready.read_text().strip()))  # noqa: ASYNC240 - as short
            await trio.sleep(POLL_S)
    raise Unavailable(f"the {child.name} did not start: it {child.ending}; its log is {log}")
