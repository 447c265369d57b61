"""Channels opened from named coins: the contract of `ports.lightning.Lightning`, on the fake, the simnet and, where they are on PATH, real nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import trio

from nostrain.devnet.regtest.plugins import write_hold_plugin
from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import ChannelOrder, Coin, NodeFunds, OpenResult
from nostrain.testing.lightning import FakeLedger, FakeLightning
from nostrain.units import BlockHeight, Msat
from tests.contracts.lightning_worlds import FUNDS
from tests.regtest.networks import NetworkProcess, require_programs
from tests.regtest.proxy import LossyProxy

CAPACITY_SAT = 50_000
PATIENCE_S = 60


class Chest:
    """The payer, which has coins, and the payee's node id. `lose` makes the reply to a method get lost, once."""

    def __init__(self, payer: FakeLightning | ClnLightning, payee_id: str) -> None:
        self.payer, self.payee_id = payer, payee_id
        self.ledger: FakeLedger | None = None
        self.network: NetworkProcess | None = None
        self.proxy: LossyProxy | None = None
        self.height = 800_000

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
        """Once the wallet has a coin that can be spent."""
        with trio.fail_after(PATIENCE_S):
            while not (found := await self.payer.funds()).coins:
                await trio.sleep(0.1)  # real nodes tell the wallet of a block after they tell us
        return found

    async def order(self, **changes: object) -> ChannelOrder:
        """A channel to the payee, from the largest coin."""
        coin = max((await self.funds()).coins, key=lambda coin: coin.amount_msat)
        made = ChannelOrder(self.payee_id, None, CAPACITY_SAT, (coin.outpoint,), 1000, announce=False)
        return ChannelOrder(**({name: getattr(made, name) for name in made.__struct_fields__} | changes))  # type: ignore[arg-type]

    async def spendable(self) -> int:
        """In all channels with the payee that are open."""
        return sum(peer.spendable_msat for peer in (await self.payer.funds()).peers if peer.node_id == self.payee_id)

    async def until_grown(self, before: int) -> int:
        """How much more can be sent, once it is more."""
        with trio.fail_after(PATIENCE_S):
            while (now := await self.spendable()) <= before:
                await trio.sleep(0.1)  # both ends have to see the block
        return now - before


@pytest.fixture(scope="module")
def simnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    process = NetworkProcess("simnet", tmp_path_factory.mktemp("simnet"), FUNDS)
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="module")
def regtest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    require_programs()
    folder = tmp_path_factory.mktemp("net")
    process = NetworkProcess("regtest", folder, FUNDS, "--plugin", str(write_hold_plugin(folder)))
    yield process
    assert process.stop() == 0


@pytest.fixture(params=["fake", "simnet", "regtest"])
async def chest(request: pytest.FixtureRequest) -> AsyncIterator[Chest]:
    if request.param == "fake":
        ledger = FakeLedger(lambda: chest.height, balances=dict(FUNDS))
        chest = Chest(FakeLightning(ledger, "payer"), "payee")
        chest.ledger = ledger
        ledger.wallet.coins["payer"] = (Coin(f"{'ab' * 32}:0", Msat(900_000_000), BlockHeight(1)),)
        ledger.wallet.coins["payer"] += (Coin(f"{'cd' * 32}:1", Msat(800_000_000), BlockHeight(1)),)
        yield chest
        return
    network: NetworkProcess = request.getfixturevalue(request.param)
    payee_id = (await ClnLightning(network.socket("payee")).info()).id
    if request.param == "simnet":
        chest = Chest(ClnLightning(network.socket("payer"), coins=True), payee_id)
        chest.network = network
        yield chest
    else:
        proxy = LossyProxy(network.folder / "proxy", network.socket("payer"))
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.serve)
            chest = Chest(ClnLightning(proxy.path, coins=True), payee_id)
            chest.network, chest.proxy = network, proxy
            yield chest
            nursery.cancel_scope.cancel()
    await chest.mine()
    await network.start_all()


async def test_the_wallet_has_coins_that_are_confirmed(chest: Chest) -> None:
    found = await chest.funds()
    assert all(0 < coin.height <= found.height and ":" in coin.outpoint for coin in found.coins)
    assert max(coin.amount_msat for coin in found.coins) >= 2 * CAPACITY_SAT * 1000
    assert found.node_id


async def test_a_channel_is_open_after_a_block_and_its_coin_is_gone(chest: Chest) -> None:
    order, before = await chest.order(), await chest.spendable()
    result = await chest.payer.open_channel(order)
    assert result.txid is not None
    assert len(result.channel_id) == 64
    found = await chest.payer.funds()
    assert order.coins[0] not in {coin.outpoint for coin in found.coins}
    assert await chest.spendable() == before, "it is not open before a block has it"
    await chest.mine()
    assert 0 < await chest.until_grown(before) <= CAPACITY_SAT * 1000


async def test_asking_again_opens_no_other(chest: Chest) -> None:
    order, before = await chest.order(), await chest.spendable()
    first = await chest.payer.open_channel(order)
    assert await chest.payer.open_channel(order) == first
    await chest.mine()
    assert await chest.until_grown(before) <= CAPACITY_SAT * 1000
    assert await chest.payer.open_channel(order) == first


async def test_a_lost_reply_is_unknown_and_the_next_call_finds_the_channel(chest: Chest) -> None:
    order, before = await chest.order(), await chest.spendable()
    await chest.lose("fundchannel")
    with pytest.raises(OutcomeUnknown):
        await chest.payer.open_channel(order)
    assert (await chest.payer.open_channel(order)).txid is not None
    await chest.mine()
    assert await chest.until_grown(before) <= CAPACITY_SAT * 1000


async def test_two_at_once_open_one_channel(chest: Chest) -> None:
    order, before = await chest.order(), await chest.spendable()
    results: list[OpenResult] = []

    async def open_it() -> None:
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    results.append(await chest.payer.open_channel(order))
                    return
                except (Unavailable, OutcomeUnknown):
                    await trio.sleep(0.1)  # the other one has reserved the coin

    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_it)
        nursery.start_soon(open_it)
    assert results[0].txid is not None
    assert results[0] == results[1]
    await chest.mine()
    assert await chest.until_grown(before) <= CAPACITY_SAT * 1000


async def test_what_cannot_be_opened_has_failed_and_the_coin_can_be_used_again(chest: Chest) -> None:
    for changes in ({"capacity_sat": 5_000_000}, {"coins": (f"{'ee' * 32}:0",)}, {"capacity_sat": 9_000}):
        result = await chest.payer.open_channel(await chest.order(**changes))
        assert result.txid is None
        assert result.reason
    await chest.crash("payee")
    assert (await chest.payer.open_channel(await chest.order())).txid is None
    await chest.start("payee")
    assert (await chest.payer.open_channel(await chest.order())).txid is not None


async def test_a_node_that_is_away_opens_nothing(chest: Chest) -> None:
    order = await chest.order()
    await chest.crash("payer")
    with pytest.raises(Unavailable):
        await chest.payer.open_channel(order)
    await chest.start("payer")
    assert (await chest.payer.open_channel(order)).txid is not None


@pytest.mark.parametrize("chest", ["simnet", "regtest"], indirect=True)
async def test_coins_that_were_spent_otherwise_open_nothing(chest: Chest) -> None:
    assert chest.network is not None
    order = await chest.order()
    assert (await chest.payer.open_channel(order)).txid is not None
    other = (await ClnLightning(chest.network.socket("payer")).info()).id
    stolen = await chest.payer.open_channel(for_another(order, other))
    assert stolen.txid is None
    assert "spent otherwise" in stolen.reason


def for_another(order: ChannelOrder, node_id: str) -> ChannelOrder:
    """The same coins for another peer."""
    return ChannelOrder(node_id, None, order.capacity_sat, order.coins, order.feerate_perkb, order.announce)
