"""What a test or a devnet may do to the network, on a socket of its own: mine, misbehave, tell the balances."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
import trio

from nostrain.devnet.simnet.nodes import Network, Node
from nostrain.devnet.simnet.params import Nothing
from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, Method, RpcFailure

MAX_BLOCKS = 10_000
Kind = Literal["crash", "start", "stall", "resume", "lose-reply", "lose-request", "fail-part", "forget-part", "expire"]


class Mine(msgspec.Struct):
    """`simnet-mine`."""

    blocks: int = 1


class Fault(msgspec.Struct):
    """`simnet-fault`. `method` and `count` are for the faults that happen so many times; `payment_hash` is for `expire`."""

    kind: Kind
    node: str = ""
    method: str = ""
    count: int = 1
    payment_hash: str = ""


class ControlMethods:
    """On the whole network. `crash` and `start` close and open a node's socket."""

    def __init__(self, network: Network, crash: Callable[[Node], Awaitable[None]], start: Callable[[Node], Awaitable[None]]) -> None:
        self.network, self._crash, self._start = network, crash, start

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "simnet-mine": Method(Mine, self.mine),
            "simnet-fault": Method(Fault, self.fault),
            "simnet-balances": Method(Nothing, self.balances),
        }

    def mine(self, asked: Mine) -> Json:
        """Let blocks pass."""
        if not 0 < asked.blocks <= MAX_BLOCKS:
            raise RpcFailure(INVALID_PARAMS, f"blocks: 1 to {MAX_BLOCKS}")
        self.network.mine(asked.blocks)
        return {"blockheight": self.network.height}

    async def fault(self, asked: Fault) -> Json:
        """Make a node misbehave, or stop it from doing so.

        `crash`: as kill -9 of lightningd with its plugins, `start` undoes it · `stall`: no request is looked at until `resume` ·
        `lose-reply`: the method is carried out, then the connection breaks · `lose-request`: it is not carried out · `fail-part`: the next
        `count` parts that the node sends fail on their way · `forget-part`: they are entered as pending and never sent, as by a lightningd that is
        killed in between · `expire`: mine until the hash's first HTLC runs out.
        """
        if asked.kind == "expire":
            heights = [
                htlc.cltv_expiry for channel in self.network.channels for htlc in channel.htlcs if htlc.payment_hash == asked.payment_hash
            ]
            if not heights:
                raise RpcFailure(INVALID_PARAMS, "payment_hash: no HTLC has it")
            self.network.mine(max(0, min(heights) - self.network.height))
            return {"blockheight": self.network.height}
        node = self.network.nodes.get(asked.node)
        if node is None:
            raise RpcFailure(INVALID_PARAMS, f"node: there is no {asked.node!r}")
        await self.misbehave(node, asked)
        return {}

    async def misbehave(self, node: Node, asked: Fault) -> None:
        """Set one fault of one node."""
        faults = node.faults
        match asked.kind:
            case "crash":
                await self._crash(node)
            case "start":
                await self._start(node)
            case "stall":
                faults.stalled, faults.resumed = True, trio.Event()
            case "resume":
                faults.stalled = False
                faults.resumed.set()
            case "lose-reply":
                faults.lose_replies[asked.method] += asked.count
            case "lose-request":
                faults.lose_requests[asked.method] += asked.count
            case "forget-part":
                faults.forget_parts += asked.count
            case _:
                faults.fail_parts += asked.count

    def balances(self, _: Nothing) -> Json:
        """What every node has, in msat: `balance` is all of it, `held` what it has offered and may lose, `incoming` what it may gain."""
        self.network.check()
        return {"nodes": {name: self.balance(name) for name in self.network.nodes}, "total_msat": self.network.total_msat}

    def balance(self, name: str) -> Json:
        """One node."""
        channels = self.network.channels_of(name)
        return {
            "id": self.network.nodes[name].id,
            "balance_msat": sum(channel.to_us[name] for channel in channels),
            "spendable_msat": sum(channel.spendable(name) for channel in channels),
            "receivable_msat": sum(channel.spendable(channel.peer(name)) for channel in channels),
            "held_msat": sum(channel.offered(name) for channel in channels),
            "incoming_msat": sum(channel.offered(channel.peer(name)) for channel in channels),
        }
