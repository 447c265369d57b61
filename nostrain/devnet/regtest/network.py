"""A star of real nodes: one channel from the first node to each other one, on a chain whose blocks come when they are asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from nostrain.devnet.processes import Processes
from nostrain.devnet.regtest.bitcoind import Bitcoind
from nostrain.devnet.regtest.lightningd import POLL_S, Lightningd, Settings
from nostrain.devnet.regtest.programs import free_ports, missing
from nostrain.errors import NostrainError, OutcomeUnknown, Unavailable
from nostrain.lightning.node import OPEN
from nostrain.lightning.rpc import ClnError
from nostrain.units import Msat

CONFIRMATIONS: Final = 6
"""After so many a channel may be announced (BOLT 7), and others can pay through it."""
SPARE_SAT: Final = 1_000_000
"""What the first node has on the chain above its channels: fees, and the reserve that lightningd keeps for anchors."""
OPEN_S: Final = 120.0
STEADY_S: Final = 10.0
ADDED: Final = frozenset({"SENT_ADD_ACK_REVOCATION", "RCVD_ADD_ACK_REVOCATION"})
MSAT_PER_SAT: Final = 1_000


class Broken(NostrainError):
    """A node logged that something is broken."""


class NodeBalance(msgspec.Struct, frozen=True):
    """Of one node: all that it has in channels, what it can send and receive, what it has offered in HTLCs, what others have offered to it."""

    id: str
    balance_msat: int
    spendable_msat: int
    receivable_msat: int
    held_msat: int
    incoming_msat: int


class RegtestNetwork:
    """bitcoind and a lightningd for each name in `funds` (msat, whole sats); the first node's are spread evenly over its channels.

    Use `running`, which also stops everything.
    """

    def __init__(self, folder: Path, funds: Mapping[str, Msat], settings: Settings) -> None:
        absent = missing()
        if absent:
            raise Unavailable(f"a regtest network needs {', '.join(absent)} on PATH")
        self.folder = folder
        self.capacities = capacities(funds)
        self.pushed = {name: funds[name] for name in self.capacities}
        self._processes = Processes()
        chain_port, *ports = free_ports(1 + len(funds))
        self.bitcoind = Bitcoind(self._processes, folder / "bitcoind", chain_port)
        self.nodes = {
            name: Lightningd(self._processes, name, folder / name, self.bitcoind, port, settings)
            for name, port in zip(funds, ports, strict=True)
        }
        self.hub = next(iter(self.nodes))

    async def start(self) -> None:
        """Start everything, fund the first node, open the channels. Raises Unavailable."""
        await self.bitcoind.start()
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                nursery.start_soon(node.start)
        hub = self.nodes[self.hub]
        await self.bitcoind.pay(
            [((await hub.ask("newaddr", addresstype="p2tr"))["p2tr"], sum(self.capacities.values()) // MSAT_PER_SAT + SPARE_SAT)]
        )
        await self.mine(1)
        for name in self.capacities:
            await hub.ask("connect", id=self.nodes[name].id, host="127.0.0.1", port=self.nodes[name].port)
        await hub.ask("multifundchannel", destinations=[self.destination(name) for name in self.capacities])
        await self.mine(CONFIRMATIONS)
        await self.usable(list(self.nodes))
        await self.known()

    def destination(self, name: str) -> Mapping[str, object]:
        """One channel of `multifundchannel`."""
        sat = self.capacities[name] // MSAT_PER_SAT
        return {"id": self.nodes[name].id, "amount": f"{sat}sat", "push_msat": self.pushed[name], "mindepth": 1}

    async def usable(self, names: list[str]) -> None:
        """Wait until every channel of these nodes with a node that is up is open and takes HTLCs. Raises Unavailable."""
        up = {node.id for node in self.nodes.values() if node.up}
        with trio.move_on_after(OPEN_S):
            for name in names:
                node = self.nodes[name]
                while not all(ready(channel) for channel in await node.channels() if channel["peer_id"] in up):  # noqa: ASYNC110 - there is no event
                    await trio.sleep(POLL_S)
            return
        raise Unavailable(f"the channels of {', '.join(names)} did not open in {OPEN_S:g} s")

    async def known(self) -> None:
        """Wait until every node has heard of every channel, so that any can pay any other. Raises Unavailable."""
        directions = 2 * len(self.capacities)
        with trio.move_on_after(OPEN_S):
            for node in self.nodes.values():
                while len((await node.ask("listchannels"))["channels"]) < directions:  # noqa: ASYNC110 - there is no event
                    await trio.sleep(POLL_S)
            return
        raise Unavailable(f"the channels were not announced in {OPEN_S:g} s")

    async def mine(self, blocks: int) -> int:
        """Mine, and wait until every node that is up has seen it; the new height. Raises Unavailable, OutcomeUnknown."""
        height = await self.bitcoind.mine(blocks)
        async with trio.open_nursery() as nursery:
            for node in self.nodes.values():
                if node.up:
                    nursery.start_soon(node.reach, height)
        return height

    async def crash(self, name: str) -> None:
        """kill -9 of one node."""
        if self.nodes[name].up:
            await self.nodes[name].kill()

    async def restart(self, name: str) -> None:
        """Bring one node back, and wait until its channels are usable. Raises Unavailable."""
        node = self.nodes[name]
        if node.up:
            return
        await node.start()
        peers = self.capacities if name == self.hub else (self.hub,)
        for peer in (self.nodes[peer] for peer in peers):
            if peer.up:
                await node.ask("connect", id=peer.id, host="127.0.0.1", port=peer.port)
        await self.usable([name, *(peer for peer in peers if self.nodes[peer].up)])

    async def balances(self) -> dict[str, NodeBalance]:
        """What every node has; a node that is down is asked about at its peer. Raises Unavailable.

        An HTLC that is being added or removed is at each end for a moment what it is not yet, or no more, at the other: that is waited out.
        """
        with trio.move_on_after(STEADY_S):
            while True:
                listed = {name: await node.channels() for name, node in self.nodes.items() if node.up}
                if all(steady(channel) for channels in listed.values() for channel in channels):
                    return {name: self.balance(name, listed) for name in self.nodes}
                await trio.sleep(POLL_S)
        raise Unavailable(f"HTLCs are still being added or removed after {STEADY_S:g} s")

    def balance(self, name: str, listed: Mapping[str, list[Mapping[str, Any]]]) -> NodeBalance:
        """One node's, from its own list of channels or from the other ends' lists."""
        own = listed.get(name)
        if own is not None:
            channels = [End.of(channel) for channel in own]
        else:
            theirs = [channel for channels in listed.values() for channel in channels]
            channels = [End.of(channel).turned() for channel in theirs if channel["peer_id"] == self.nodes[name].id]
        return NodeBalance(
            id=self.nodes[name].id,
            balance_msat=sum(end.to_us_msat for end in channels),
            spendable_msat=sum(end.spendable_msat for end in channels),
            receivable_msat=sum(end.receivable_msat for end in channels),
            held_msat=sum(end.out_msat for end in channels),
            incoming_msat=sum(end.in_msat for end in channels),
        )

    async def stop(self) -> list[str]:
        """Stop every node and then bitcoind, also when cancelled; what the nodes complained of."""
        with trio.CancelScope(shield=True):
            try:
                async with trio.open_nursery() as nursery:
                    for node in self.nodes.values():
                        nursery.start_soon(node.stop)
                await self.bitcoind.stop()
            finally:
                await self._processes.stop_all()
        return [line for node in self.nodes.values() for line in node.complaints()]


class End(msgspec.Struct, frozen=True):
    """One end of a channel."""

    to_us_msat: int
    total_msat: int
    spendable_msat: int
    receivable_msat: int
    out_msat: int
    in_msat: int

    @classmethod
    def of(cls, channel: Mapping[str, Any]) -> End:
        """As `listpeerchannels` has it."""
        sums = {"in": 0, "out": 0}
        for htlc in channel["htlcs"]:
            sums[htlc["direction"]] += htlc["amount_msat"]
        return cls(
            to_us_msat=channel["to_us_msat"],
            total_msat=channel["total_msat"],
            spendable_msat=channel["spendable_msat"],
            receivable_msat=channel["receivable_msat"],
            out_msat=sums["out"],
            in_msat=sums["in"],
        )

    def turned(self) -> End:
        """As the other end sees it."""
        return End(
            self.total_msat - self.to_us_msat, self.total_msat, self.receivable_msat, self.spendable_msat, self.in_msat, self.out_msat
        )


def steady(channel: Mapping[str, Any]) -> bool:
    """Whether all HTLCs of a channel are fully there, for both ends (`common/htlc_state.h`)."""
    return not channel["peer_connected"] or all(htlc["state"] in ADDED for htlc in channel["htlcs"])


def ready(channel: Mapping[str, Any]) -> bool:
    """Whether a channel takes HTLCs."""
    return bool(channel["state"] in OPEN and channel["peer_connected"] and channel["reestablished"])


def capacities(funds: Mapping[str, Msat]) -> dict[str, Msat]:
    """The size of the first node's channel with each other one. Raises ValueError unless there are two nodes and all sums are whole sats."""
    hub, *others = funds
    if not others:
        raise ValueError("a network needs two nodes")
    if any(amount % MSAT_PER_SAT for amount in funds.values()):
        raise ValueError("funds must be whole sats: the chain has nothing smaller")
    share = funds[hub] // len(others) // MSAT_PER_SAT * MSAT_PER_SAT
    rest = funds[hub] - share * len(others)
    return {name: Msat(share + funds[name] + (rest if index == 0 else 0)) for index, name in enumerate(others)}


@asynccontextmanager
async def running(folder: Path, funds: Mapping[str, Msat], settings: Settings) -> AsyncIterator[RegtestNetwork]:
    """A network with open channels; stopped in the end. Raises Unavailable when it does not start, Broken when a node complained."""
    network = RegtestNetwork(folder, funds, settings)
    try:
        try:
            await network.start()
        except (ClnError, OutcomeUnknown) as error:
            raise Unavailable(f"the regtest network did not start: {error}") from error
        yield network
    finally:
        complaints = await network.stop()
        if complaints:
            raise Broken("\n".join(complaints))
