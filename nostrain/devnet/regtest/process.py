"""The process: a control socket, the block clock, and the network under it.

    python -m nostrain.devnet.regtest --dir DIR --nodes coordinator=2000000000,worker-1=0 [--block-seconds N] [--ready-file F] [--regtest-cltv]

Node NAME listens on DIR/NAME/lightning-rpc, control on DIR/regtest-rpc: `regtest-mine`, `regtest-fault` (`crash`, `start`),
`regtest-balances`, with the parameters and results of the simnet's. Ends on SIGTERM, SIGINT, or when its parent dies: with exit code 0, or 1
when a node logged that something is broken. After kill -9 of it, its lightningds and bitcoind are left behind.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import trio

from nostrain.devnet.lightning_process import announce, listen, options_of, until_told
from nostrain.devnet.regtest.lightningd import MAINNET_LIKE, REGTEST, Settings
from nostrain.devnet.regtest.network import Broken, RegtestNetwork, running
from nostrain.devnet.simnet.control import MAX_BLOCKS, Mine
from nostrain.devnet.simnet.nodes import Faults
from nostrain.devnet.simnet.params import Nothing
from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, Method, RpcFailure
from nostrain.errors import OutcomeUnknown, Unavailable

CONTROL_SOCKET: Final = "regtest-rpc"
LIGHTNINGD: Final = -1
"""lightningd's code for what has none of its own."""


class Fault(msgspec.Struct):
    """`regtest-fault`."""

    kind: Literal["crash", "start"]
    node: str


class ControlMethods:
    """On the whole network."""

    def __init__(self, network: RegtestNetwork) -> None:
        self.network = network

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "regtest-mine": Method(Mine, self.mine),
            "regtest-fault": Method(Fault, self.fault),
            "regtest-balances": Method(Nothing, self.balances),
        }

    async def mine(self, asked: Mine) -> Json:
        """Mine, and wait until every node has seen it."""
        if not 0 < asked.blocks <= MAX_BLOCKS:
            raise RpcFailure(INVALID_PARAMS, f"blocks: 1 to {MAX_BLOCKS}")
        try:
            return {"blockheight": await self.network.mine(asked.blocks)}
        except (Unavailable, OutcomeUnknown) as error:
            raise RpcFailure(LIGHTNINGD, str(error)) from None

    async def fault(self, asked: Fault) -> Json:
        """`crash`: kill -9 of a lightningd with its plugins · `start` undoes it, and returns when its channels are usable."""
        if asked.node not in self.network.nodes:
            raise RpcFailure(INVALID_PARAMS, f"node: there is no {asked.node!r}")
        try:
            await (self.network.crash if asked.kind == "crash" else self.network.restart)(asked.node)
        except (Unavailable, OutcomeUnknown) as error:
            raise RpcFailure(LIGHTNINGD, str(error)) from None
        return {}

    async def balances(self, _: Nothing) -> Json:
        """What every node has, as the nodes say."""
        try:
            balances = await self.network.balances()
        except Unavailable as error:
            raise RpcFailure(LIGHTNINGD, str(error)) from None
        return {
            "nodes": {name: msgspec.to_builtins(balance) for name, balance in balances.items()},
            "total_msat": sum(self.network.capacities.values()),
        }


async def serve(options: argparse.Namespace, settings: Settings) -> None:
    """Run until told to end. Raises Unavailable, Broken."""
    async with until_told(), running(options.dir, options.nodes, settings) as network, trio.open_nursery() as serving:
        await serving.start(listen, options.dir / CONTROL_SOCKET, ControlMethods(network).table(), Faults())
        if options.block_seconds > 0:
            serving.start_soon(mine_by_clock, network, options.block_seconds)
        announce(options.ready_file, options.dir / CONTROL_SOCKET)
        print("regtest: real nodes, their coins are worth nothing", flush=True)


async def mine_by_clock(network: RegtestNetwork, block_s: float) -> None:
    """A block every so many seconds."""
    while True:
        await trio.sleep(block_s)
        await network.mine(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; the exit code."""
    parser = options_of("regtest", "A Lightning network of real nodes on regtest; amounts are whole sats.")
    parser.add_argument(
        "--regtest-cltv", action="store_true", help="lightningd's short CLTVs and 483 slots of regtest (default: mainnet's)"
    )
    parser.add_argument("--plugin", type=Path, action="append", default=[], help="a plugin for every node; may be given again")
    options = parser.parse_args(arguments)
    settings = msgspec.structs.replace(REGTEST if options.regtest_cltv else MAINNET_LIKE, plugins=tuple(options.plugin))
    failed = []
    try:
        trio.run(serve, options, settings)
    except* (Unavailable, Broken, ValueError) as failures:
        failed = leaves(failures)
    for error in failed:
        print(error, file=sys.stderr)
    return 1 if failed else 0


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """The errors of nested groups."""
    return [leaf for error in group.exceptions for leaf in (leaves(error) if isinstance(error, BaseExceptionGroup) else [error])]
