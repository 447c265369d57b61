"""The part of `ports.lightning.Lightning`'s contract for when a reply, a call or a node is lost in between: nothing is paid twice, and every payment is found again."""

from __future__ import annotations

import pytest
import trio

from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.ports.lightning import HoldState, PayResult
from tests.contracts.holding import AMOUNT, CLTV, PATIENCE_S, Secret, both, following, paying
from tests.contracts.lightning_worlds import World


async def test_a_lost_reply_is_unknown_and_then_reconciled(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    await world.lose_a_reply()
    async with following(world.payee, payment_hash) as until:
        async with paying(world, bolt11, payment_hash) as lost:
            await until(HoldState.ACCEPTED)
        assert [type(result) for result in lost] == [OutcomeUnknown]
        assert await world.held() == AMOUNT
        async with paying(world, bolt11, payment_hash) as results:
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_a_cancelled_call_leaves_the_payment_to_be_joined(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.payer.pay, bolt11, payment_hash, AMOUNT)
            await until(HoldState.ACCEPTED)
            nursery.cancel_scope.cancel()
        assert await world.held() == AMOUNT
        async with paying(world, bolt11, payment_hash) as results:
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_the_payers_node_restarts_while_held(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        async with paying(world, bolt11, payment_hash) as lost:
            await until(HoldState.ACCEPTED)
            await world.crash("payer")
        assert [type(result) for result in lost] == [OutcomeUnknown]
        with pytest.raises(OutcomeUnknown):
            await world.payer.pay(bolt11, payment_hash, AMOUNT)
        await world.start("payer")
        async with paying(world, bolt11, payment_hash) as results:
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_the_payees_node_restarts_while_held(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with paying(world, bolt11, payment_hash) as results:
        async with following(world.payee, payment_hash) as until:
            await until(HoldState.ACCEPTED)
        await world.crash("payee")
        for call in (lambda: world.payee.settle(preimage), lambda: world.payee.cancel(payment_hash), world.payee.block_height):
            with pytest.raises(Unavailable):
                await call()
        assert await world.held() == AMOUNT
        await world.start("payee")
        async with following(world.payee, payment_hash) as until:
            assert (await until(HoldState.ACCEPTED)).cltv_expiry is not None
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_updates_end_with_unavailable_when_the_node_is_lost(world: World) -> None:
    async def follow() -> None:
        async with world.payee.holds() as updates:
            await world.crash("payee")
            async for update in updates:
                assert update.payment_hash

    with trio.fail_after(PATIENCE_S), pytest.raises(Unavailable):
        await follow()
    await world.start("payee")
    assert await world.payee.block_height() > 0


async def test_a_payee_that_is_away_is_paid_when_it_is_back(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    await world.crash("payee")
    with trio.fail_after(PATIENCE_S), pytest.raises(OutcomeUnknown):
        await world.payer.pay(bolt11, payment_hash, AMOUNT)
    assert await world.held() == 0
    await world.start("payee")
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash) as results:
        await until(HoldState.ACCEPTED)
        await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
