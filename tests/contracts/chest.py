"""A payer with coins and a channel, over the fake ledger, the simnet, and real nodes where they are on PATH: what opens channels and withdraws."""

from __future__ import annotations

import itertools

import trio

from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import ChannelOrder, NodeFunds, SpliceOrder, WithdrawalOrder
from nostrain.testing.lightning import FakeLedger, FakeLightning
from tests.regtest.networks import NetworkProcess, ask
from tests.regtest.proxy import LossyProxy

CAPACITY_SAT, SENT_SAT = 50_000, 30_000
ENOUGH = 100_000_000
RESERVED_BLOCKS = 72
PATIENCE_S = 60


class Chest:
    """The payer, which has coins, and the payee's node id. `lose` makes the reply to a method get lost, once."""

    def __init__(self, payer: FakeLightning | ClnLightning, payee_id: str) -> None:
        self.payer, self.payee_id = payer, payee_id
        self.ledger: FakeLedger | None = None
        self.network: NetworkProcess | None = None
        self.proxy: LossyProxy | None = None
        self.height = 800_000
        self.address = "bcrt1fake"

    async def renew(self) -> None:
        """An address of this test's own."""
        assert self.network is not None
        made = await ask(self.network.socket("payee"), "newaddr", {"addresstype": "p2tr"})
        self.address = made["p2tr"]

    async def mine(self, blocks: int = 1) -> None:
        self.height += blocks
        if self.network is not None:
            await self.network.control("mine", blocks=blocks)

    async def lose(self, method: str) -> None:
        if self.ledger is not None:
            self.ledger.lost_replies += 1
        elif self.proxy is not None:
            self.proxy.lose[method] += 1
        elif self.network is not None:
            await self.network.control("fault", kind="lose-reply", node="payer", method=method)

    async def crash(self, name: str) -> None:
        if self.ledger is not None:
            self.ledger.crash(self.payee_id if name == "payee" else name)
        elif self.network is not None:
            await self.network.control("fault", kind="crash", node=name)

    async def start(self, name: str) -> None:
        if self.ledger is not None:
            self.ledger.start(self.payee_id if name == "payee" else name)
        elif self.network is not None:
            await self.network.control("fault", kind="start", node=name)

    async def funds(self) -> NodeFunds:
        """Once the wallet has a coin that can be spent and is large enough; others may have reserved it."""
        with trio.fail_after(PATIENCE_S):
            for again in itertools.count(1):
                found = await self.payer.funds()
                if any(coin.amount_msat >= ENOUGH for coin in found.coins):
                    return found
                if again % 5 == 0:
                    await self.mine(RESERVED_BLOCKS + 1)
                await trio.sleep(0.1)  # real nodes tell the wallet of a block after they tell us
        raise AssertionError

    async def order(self, **changes: object) -> ChannelOrder:
        """A channel to the payee, from the largest coin."""
        coin = max((await self.funds()).coins, key=lambda coin: coin.amount_msat)
        made = ChannelOrder(self.payee_id, None, CAPACITY_SAT, (coin.outpoint,), 1000, announce=False)
        return ChannelOrder(**({name: getattr(made, name) for name in made.__struct_fields__} | changes))  # type: ignore[arg-type]

    async def spendable(self) -> int:
        """In all channels with the payee that are open."""
        return sum(peer.spendable_msat for peer in (await self.payer.funds()).peers if peer.node_id == self.payee_id)

    async def splice(self) -> SpliceOrder:
        """To take 20,000 sat out of the payer's largest channel, once it takes splices."""
        with trio.fail_after(PATIENCE_S):
            while not (found := (await self.payer.funds()).channels):
                await trio.sleep(0.1)  # both ends have to see the block
        largest = max(found, key=lambda one: one.spendable_msat)
        return SpliceOrder(largest.channel_id, largest.funding_txid, 20_000)

    async def withdrawal(self, **changes: object) -> WithdrawalOrder:
        """SENT_SAT to the address of the test, from the largest coin."""
        coin = max((await self.funds()).coins, key=lambda coin: coin.amount_msat)
        made = WithdrawalOrder(self.address, SENT_SAT, (coin.outpoint,), 1000)
        return WithdrawalOrder(**({name: getattr(made, name) for name in made.__struct_fields__} | changes))  # type: ignore[arg-type]

    async def received(self) -> int:
        """What the address has got, in sat: it is one of the payee's, where there is a chain."""
        if self.network is None:
            assert self.ledger is not None
            return self.ledger.wallet.received.get(self.address, 0)
        listed = await ask(self.network.socket("payee"), "listfunds", {})
        return sum(output["amount_msat"] for output in listed["outputs"] if output["address"] == self.address) // 1000

    async def until_received(self, sat: int) -> None:
        """Wait for it: a wallet sees a block a moment later."""
        with trio.fail_after(PATIENCE_S):
            while await self.received() < sat:
                await trio.sleep(0.1)

    async def until_grown(self, before: int) -> int:
        """How much more can be sent, once it is more."""
        with trio.fail_after(PATIENCE_S):
            while (now := await self.spendable()) <= before:
                await trio.sleep(0.1)  # both ends have to see the block
        return now - before
