"""Channels opened from named coins: the contract of `ports.lightning.Lightning`, on the fake, the simnet and, where they are on PATH, real nodes."""

from __future__ import annotations

import pytest
import trio

from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import ChannelOrder, OpenResult
from tests.contracts.chest import CAPACITY_SAT, PATIENCE_S, Chest


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


async def test_asking_what_became_of_an_opening_opens_nothing(chest: Chest) -> None:
    order, before = await chest.order(), await chest.spendable()
    question = await chest.order(coins=order.coins, ask=True)
    assert (await chest.payer.open_channel(question)).txid is None
    await chest.crash("payee")
    assert (await chest.payer.open_channel(question)).txid is None
    await chest.start("payee")
    made = await chest.payer.open_channel(order)
    assert await chest.payer.open_channel(question) == made
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


@pytest.mark.parametrize("coin_network", ["simnet", "regtest"], indirect=True)
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
