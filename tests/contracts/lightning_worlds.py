"""Two nodes with a channel, `payer` and `payee`, and what a test may do to them: the fake ledger, the simnet, real nodes; the latter by their socket or a rune."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, TypeVar

import trio

from nostrain.errors import OutcomeUnknown
from nostrain.lightning.client import ClnLightning
from nostrain.lightning.commando import NodeAddress, Rune, open_commando
from nostrain.lightning.rights import Use, restrictions
from nostrain.lightning.rpc import Rpc
from nostrain.ports.lightning import Lightning
from nostrain.testing.lightning import FakeLedger, FakeLightning
from nostrain.units import Msat
from tests.lightning.commando_bridge import RUNE, CommandoBridge
from tests.regtest.networks import NetworkProcess, ask
from tests.regtest.proxy import LossyProxy

T = TypeVar("T")

FUNDS = {"payer": Msat(1_000_000_000), "payee": Msat(20_000_000)}


class World(Protocol):
    """Two nodes with a channel, and what a test may do to them."""

    payer: Lightning
    payee: Lightning

    async def mine(self, blocks: int) -> None: ...
    async def balance(self, name: str) -> int: ...
    async def held(self) -> int: ...
    async def crash(self, name: str) -> None: ...
    async def start(self, name: str) -> None: ...
    async def lose_a_reply(self, method: str = "sendpay") -> None: ...


class FakeWorld:
    """The fake ledger."""

    def __init__(self) -> None:
        self._height = 800_000
        self._ledger = FakeLedger(lambda: self._height, balances=dict(FUNDS))
        self.payer, self.payee = FakeLightning(self._ledger, "payer"), FakeLightning(self._ledger, "payee")

    async def mine(self, blocks: int) -> None:
        self._height += blocks
        self._ledger.expire()

    async def balance(self, name: str) -> int:
        return self._ledger.balances[name]

    async def held(self) -> int:
        assert self._ledger.total() == sum(FUNDS.values())
        return self._ledger.held()

    async def crash(self, name: str) -> None:
        self._ledger.crash(name)

    async def start(self, name: str) -> None:
        self._ledger.start(name)

    async def lose_a_reply(self, method: str = "sendpay") -> None:
        self._ledger.lost_replies += 1


class NetworkWorld:
    """The simnet, or real nodes. A node's balance is what it would have if nothing that it offered were taken: the fake's is without that."""

    def __init__(self, network: NetworkProcess, payers: Path | Rpc | None = None, payees: Path | Rpc | None = None) -> None:
        self._network = network
        self.payer = ClnLightning(payers or network.socket("payer"), hold_poll_s=0.02)
        self.payee = ClnLightning(payees or network.socket("payee"), hold_poll_s=0.02)

    async def mine(self, blocks: int) -> None:
        await self._network.control("mine", blocks=blocks)

    async def balance(self, name: str) -> int:
        node = (await self._network.balances())[name]
        return node["balance_msat"] - node["held_msat"]

    async def held(self) -> int:
        return sum(node["held_msat"] for node in (await self._network.balances()).values())

    async def crash(self, name: str) -> None:
        await self._network.control("fault", kind="crash", node=name)

    async def start(self, name: str) -> None:
        await self._network.control("fault", kind="start", node=name)

    async def lose_a_reply(self, method: str = "sendpay") -> None:
        await self._network.control("fault", kind="lose-reply", node="payer", method=method)


class RegtestWorld(NetworkWorld):
    """Real nodes, the payer's behind a proxy that can lose a reply."""

    def __init__(self, network: NetworkProcess, proxy: LossyProxy) -> None:
        super().__init__(network, proxy.path)
        self._proxy = proxy

    async def lose_a_reply(self, method: str = "sendpay") -> None:
        self._proxy.lose[method] += 1


class RuneWorld(NetworkWorld):
    """The simnet or real nodes, asked by runes that allow what a coordinator and a worker need."""

    def __init__(self, network: NetworkProcess, payers: Rpc, payees: Rpc) -> None:
        self._lossy = LossyRpc(payers)
        super().__init__(network, self._lossy, payees)

    async def lose_a_reply(self, method: str = "sendpay") -> None:
        self._lossy.lose[method] += 1


class LossyRpc:
    """Methods whose replies can be lost: one in `lose` is waited for, and kept."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc, self.lose = rpc, Counter[str]()

    async def call(self, method: str, params: Mapping[str, object], reply: type[T], *, timeout_s: float | None) -> T:
        """As `ClnRpc.call`."""
        found = await self._rpc.call(method, params, reply, timeout_s=timeout_s)
        if self.lose[method] > 0:
            self.lose[method] -= 1
            raise OutcomeUnknown(f"{method}: lost")
        return found


PAYERS, PAYEES = {Use.READ, Use.PAY, Use.FETCH, Use.INVOICE}, {Use.READ, Use.HOLD, Use.INVOICE, Use.OFFER}


@asynccontextmanager
async def by_rune(network: NetworkProcess) -> AsyncIterator[RuneWorld]:
    """The world of a network whose nodes are asked by runes."""
    async with trio.open_nursery() as nursery:
        payer, payers_rune = await with_rights(network, "payer", PAYERS, nursery)
        payee, payees_rune = await with_rights(network, "payee", PAYEES, nursery)
        async with open_commando(payer, payers_rune) as payers, open_commando(payee, payees_rune) as payees:
            yield RuneWorld(network, payers, payees)
        nursery.cancel_scope.cancel()


async def with_rights(network: NetworkProcess, name: str, uses: set[Use], nursery: trio.Nursery) -> tuple[NodeAddress, Rune]:
    """A real node and its rune; the simnet's nodes have a bridge."""
    rules = restrictions(uses)
    if network.kind == "simnet":
        bridge = CommandoBridge(network.socket(name), {rule.removeprefix("method=") for rule in rules[0]})
        await nursery.start(bridge.serve)
        return bridge.address, Rune(RUNE)
    info = await ask(network.socket(name), "getinfo", {})
    made = await ask(network.socket(name), "createrune", {"restrictions": rules})
    return NodeAddress(info["id"], "127.0.0.1", info["binding"][0]["port"]), Rune(made["rune"])
