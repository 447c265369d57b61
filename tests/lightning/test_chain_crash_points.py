"""A node that dies between any two calls while it opens a channel or withdraws, over the simnet: one channel, one transaction, and it hears which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import ChannelOrder, SpliceOrder, WithdrawalOrder
from nostrain.testing.steps import Death
from tests.lightning.dying import Mortal, every_death
from tests.simnet.conftest import PATIENCE_S, World

CAPACITY_SAT, TAKEN_SAT, SENT_SAT = 60_000, 20_000, 100_000
ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
Act = Callable[[ClnLightning], Awaitable[str | None]]


async def coin(world: World) -> str:
    """The largest one of `c` that can be spent."""
    chain = world.network.chain
    free = chain.free("c", world.network.height, 1)
    return max(free, key=lambda one: one.amount_msat).outpoint


async def opening(world: World) -> Act:
    order = ChannelOrder(world.network.nodes["w"].id, None, CAPACITY_SAT, (await coin(world),), 1000, announce=False)

    async def act(lightning: ClnLightning) -> str | None:
        return (await lightning.open_channel(order)).txid

    return act


async def splicing(world: World) -> Act:
    channel = next(channel for channel in world.network.channels if "w" in channel.ends and not channel.pending)
    order = SpliceOrder(channel.channel_id, channel.funding_txid, TAKEN_SAT)

    async def act(lightning: ClnLightning) -> str | None:
        return (await lightning.splice_out(order)).txid

    return act


async def sending(world: World) -> Act:
    """What is prepared is committed; whoever died before that waits until the coins are free again."""
    coins = (await coin(world),)
    made = await ClnLightning(world.path("c")).prepare_withdrawal(WithdrawalOrder(ADDRESS, SENT_SAT, coins, 1000))
    assert made.txid is not None
    txid, psbt = made.txid, made.psbt

    async def act(lightning: ClnLightning) -> str | None:
        return (await lightning.send_withdrawal(txid, psbt, coins)).txid

    return act


async def run(world: World, begin: Callable[[World], Awaitable[Act]], *deaths: Death) -> Mortal:
    """Once, with these deaths: exactly one transaction, the one that it is told of."""
    before = set(world.network.chain.sent)
    act, mortal = await begin(world), Mortal(world.path("c"), *deaths)
    with trio.fail_after(PATIENCE_S):
        txid = await mortal.insist(act)
    assert set(world.network.chain.sent) - before == {txid}
    world.network.mine(1)
    return mortal


@pytest.mark.parametrize("begin", [opening, splicing, sending], ids=lambda begin: begin.__name__)
async def test_a_death_between_any_two_calls(world: World, begin: Callable[[World], Awaitable[Act]]) -> None:
    whole = await run(world, begin)
    asked = {step.method for step in whole.steps.taken}
    assert asked & {"fundchannel", "spliceout", "sendpsbt"}
    for death in every_death(whole.steps, "c"):
        mortal = await run(world, begin, death)
        assert mortal.deaths == 1, death


async def test_a_withdrawal_that_was_not_committed_is_made_again_when_its_coins_are_free(world: World) -> None:
    order = WithdrawalOrder(ADDRESS, SENT_SAT, (await coin(world),), 1000)
    whole = Mortal(world.path("c"))
    made = await whole.insist(lambda lightning: lightning.prepare_withdrawal(order))
    assert made.txid is not None
    world.network.mine(73)
    for death in every_death(whole.steps, "c"):
        mortal = Mortal(world.path("c"), death)
        with trio.fail_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(blocks, world)
                assert (await mortal.insist(lambda lightning: lightning.prepare_withdrawal(order))).txid is not None
                nursery.cancel_scope.cancel()
        assert mortal.deaths == 1
        world.network.mine(73)
    assert not world.network.chain.sent, "nothing was sent"


async def blocks(world: World) -> None:
    """Time passes on the chain."""
    while True:
        await trio.sleep(0.02)
        world.network.mine(10)
