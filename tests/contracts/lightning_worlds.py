"""Two nodes with a channel, `payer` and `payee`, and what a test may do to them: the fake ledger, the simnet, real nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import Lightning
from nostrain.testing.lightning import FakeLedger, FakeLightning
from nostrain.units import Msat
from tests.regtest.networks import NetworkProcess
from tests.regtest.proxy import LossyProxy

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

    def __init__(self, network: NetworkProcess, payers_socket: Path | None = None) -> None:
        self._network = network
        self.payer = ClnLightning(payers_socket or network.socket("payer"), hold_poll_s=0.02)
        self.payee = ClnLightning(network.socket("payee"), hold_poll_s=0.02)

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
