"""Hold invoices in parts, and as many as a channel has slots: what lightningd has and the port's fake has not."""

from __future__ import annotations

import trio

from nostrain.ports.lightning import HoldState, PayResult
from nostrain.units import Digest, Msat
from tests.contracts.holding import AMOUNT, CLTV, PATIENCE_S, Secret, both, following, paying
from tests.contracts.lightning_worlds import NetworkWorld
from tests.regtest.networks import Failure, NetworkProcess, ask

SMALL = Msat(1_000_000)
MANY = 40
"""More than the slots of mainnet's settings, fewer than those of regtest's."""


async def test_parts_of_a_payment_are_held_when_all_are_there(nodes: NetworkProcess, secret: Secret) -> None:
    """MPP: here sent by hand, since between two nodes nothing needs it; `pay` joins what it finds."""
    preimage, payment_hash = secret()
    world = NetworkWorld(nodes)
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        await send_part(nodes, bolt11, 1, AMOUNT // 4)
        while await world.held() == 0:
            await trio.lowlevel.checkpoint()
        assert await world.held() == AMOUNT // 4
        await until(HoldState.UNPAID)
        await send_part(nodes, bolt11, 2, AMOUNT - AMOUNT // 4)
        assert (await until(HoldState.ACCEPTED)).amount_msat == AMOUNT
        assert await world.held() == AMOUNT
        async with paying(world, bolt11, payment_hash) as results:
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def send_part(nodes: NetworkProcess, bolt11: str, partid: int, amount: int) -> None:
    """One part of AMOUNT over the channel."""
    socket = nodes.socket("payer")
    invoice = await ask(socket, "decode", {"string": bolt11})
    channel = (await ask(socket, "listpeerchannels", {"id": invoice["payee"]}))["channels"][0]["short_channel_id"]
    hop = {"id": invoice["payee"], "channel": channel, "amount_msat": amount, "delay": invoice["min_final_cltv_expiry"] + 1}
    terms = {"payment_hash": invoice["payment_hash"], "payment_secret": invoice["payment_secret"], "amount_msat": AMOUNT}
    sent = await ask(socket, "sendpay", {"route": [hop], "partid": partid, "groupid": 1, **terms})
    assert not isinstance(sent, Failure), sent


async def test_as_many_are_held_as_the_channel_has_slots_and_the_next_fails_for_good(nodes: NetworkProcess, secret: Secret) -> None:
    world = NetworkWorld(nodes)
    before = await both(world)
    slots = (await world.payer.balances()).channels[0].max_accepted_htlcs
    holds = [secret() for _ in range(min(slots, MANY))]
    invoices = {payment_hash: await world.payee.hold_invoice(payment_hash, SMALL, CLTV, 3600) for _, payment_hash in holds}
    ended: list[PayResult] = []

    async def pay(payment_hash: Digest) -> None:
        ended.append(await world.payer.pay(invoices[payment_hash], payment_hash, SMALL))

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery, world.payee.holds() as updates:
            for _, payment_hash in holds:
                nursery.start_soon(pay, payment_hash)
            accepted: set[Digest] = set()
            while accepted != set(invoices):
                update = await updates.receive()
                if update.state is HoldState.ACCEPTED:
                    accepted.add(update.payment_hash)
            assert await world.held() == SMALL * len(holds)
            if len(holds) == slots:
                _, one_more = secret()
                bolt11 = await world.payee.hold_invoice(one_more, SMALL, CLTV, 3600)
                assert await world.payer.pay(bolt11, one_more, SMALL) == PayResult(one_more, None)
            for _, payment_hash in holds:
                await world.payee.cancel(payment_hash)
    assert sorted(ended, key=str) == sorted((PayResult(payment_hash, None) for payment_hash in invoices), key=str)
    assert await both(world) == before
    assert await world.held() == 0
