"""The process: one Unix socket per node, one for control, the block clock.

    python -m nostrain.devnet.simnet --dir DIR --nodes coordinator=2000000000,worker-1=0 [--block-seconds N] [--ready-file F]

Node NAME listens on DIR/NAME/lightning-rpc, control on DIR/simnet-rpc. Amounts are msat; the first node is the hub and spreads its own evenly
over one channel to each other node. Ends, with exit code 0, on SIGTERM, SIGINT, or when its parent dies.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import trio

from nostrain.devnet.lightning_process import announce, listen, options_of, until_told
from nostrain.devnet.simnet.channels import DEFAULT_SLOTS, MAX_SLOTS
from nostrain.devnet.simnet.control import ControlMethods
from nostrain.devnet.simnet.hold import HoldMethods
from nostrain.devnet.simnet.info import NETWORK, InfoMethods
from nostrain.devnet.simnet.invoices import InvoiceMethods
from nostrain.devnet.simnet.nodes import Faults, Network, Node
from nostrain.devnet.simnet.offers import OfferMethods
from nostrain.devnet.simnet.onchain import OnchainMethods
from nostrain.devnet.simnet.payments import PaymentMethods
from nostrain.devnet.simnet.receiving import drop_partial_sets
from nostrain.devnet.simnet.rpc import Method
from nostrain.devnet.simnet.spending import SpendingMethods
from nostrain.devnet.simnet.waiting import WaitMethods
from nostrain.units import Msat

SOCKET: Final = "lightning-rpc"
CONTROL_SOCKET: Final = "simnet-rpc"
TICK_S: Final = 1.0


class Simnet:
    """A network and its sockets."""

    def __init__(self, folder: Path, funds: Mapping[str, Msat], slots: int = DEFAULT_SLOTS) -> None:
        self.network = Network(funds, slots)
        self.control = ControlMethods(self.network, self._crash, self._start)
        self._folder = folder
        self._scopes: dict[str, trio.CancelScope] = {}
        self._gone: dict[str, trio.Event] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, block_s: float = 0, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; `block_s` = 0: blocks come by `simnet-mine` only."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(listen, self._folder / CONTROL_SOCKET, self.control.table(), Faults())
            for node in self.network.nodes.values():
                await self._start(node)
            nursery.start_soon(self._tick)
            if block_s > 0:
                nursery.start_soon(self._mine, block_s)
            task_status.started()

    async def _mine(self, block_s: float) -> None:
        while True:
            await trio.sleep(block_s)
            self.network.mine(1)

    async def _tick(self) -> None:
        """Time-outs of partial payments."""
        while True:
            await trio.sleep(TICK_S)
            drop_partial_sets(self.network)

    async def _start(self, node: Node) -> None:
        """Bring a node up."""
        if node.name in self._scopes:
            return
        assert self._nursery is not None
        self.network.start(node)
        tables = (InfoMethods, OnchainMethods, SpendingMethods, InvoiceMethods, OfferMethods, PaymentMethods, WaitMethods, HoldMethods)
        methods = {name: method for table in tables for name, method in table(self.network, node).table().items()}
        await self._nursery.start(self._serve_node, node, methods)

    async def _serve_node(self, node: Node, methods: Mapping[str, Method], *, task_status: trio.TaskStatus[None]) -> None:
        self._gone[node.name] = trio.Event()
        with trio.CancelScope() as scope:
            self._scopes[node.name] = scope
            await listen(self._folder / node.name / SOCKET, methods, node.faults, task_status=task_status)
        self._gone[node.name].set()

    async def _crash(self, node: Node) -> None:
        """Take a node down: its connections break, what it has promised stays promised."""
        scope = self._scopes.pop(node.name, None)
        if scope is not None:
            node.up = False
            scope.cancel()
            await self._gone[node.name].wait()


def parse_slots(text: str) -> int:
    """1 to 483."""
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SLOTS:
        raise argparse.ArgumentTypeError(f"1 to {MAX_SLOTS}")
    return int(text)


async def serve(options: argparse.Namespace) -> None:
    """Run until told to end; write the ready file when every socket listens."""
    simnet = Simnet(options.dir, options.nodes, options.max_accepted_htlcs)
    async with until_told(), trio.open_nursery() as nursery:
        await nursery.start(simnet.run, options.block_seconds)
        announce(options.ready_file, options.dir / CONTROL_SOCKET)
        print("simnet: a test network, its coins are worth nothing", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; the exit code."""
    parser = options_of("simnet", "A Lightning test network in one process.")
    parser.add_argument("--max-accepted-htlcs", type=parse_slots, default=DEFAULT_SLOTS, help="HTLC slots per channel and direction")
    parser.add_argument("--network", choices=[NETWORK], default=NETWORK, help="there is no other: this is not money")
    options = parser.parse_args(arguments)
    trio.run(serve, options)
    return 0
