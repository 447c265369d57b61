"""One suite for `ports.lightning.Lightning`: on the fake, and on the real client with the simnet or, where they are on PATH, real nodes in processes of their own."""

from __future__ import annotations

import pytest
import trio

from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.ports.lightning import HoldState, NodeFunds, PayResult
from nostrain.units import Msat
from tests.contracts.holding import AMOUNT, CLTV, PATIENCE_S, Secret, both, following, paying
from tests.contracts.lightning_worlds import FUNDS, World

SEVERAL = 3


async def test_pay_hold_settle_moves_exactly_the_amount(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    height = await world.payee.block_height()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        assert (await until(HoldState.UNPAID)).amount_msat == AMOUNT
        async with paying(world, bolt11, payment_hash) as results:
            accepted = await until(HoldState.ACCEPTED)
            assert accepted.amount_msat == AMOUNT
            assert accepted.cltv_expiry is not None
            assert height + CLTV <= accepted.cltv_expiry <= height + CLTV + 10
            assert await both(world) == (payer - AMOUNT, payee)
            assert await world.held() == AMOUNT
            assert results == []
            await world.payee.settle(preimage)
            await until(HoldState.PAID)
        await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)
    assert await world.held() == 0


async def test_cancel_gives_the_money_back_and_the_payment_fails(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    before = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        async with paying(world, bolt11, payment_hash) as results:
            await until(HoldState.ACCEPTED)
            await world.payee.cancel(payment_hash)
            await until(HoldState.CANCELLED)
        await world.payee.cancel(payment_hash)
    assert results == [PayResult(payment_hash, None)]
    assert await both(world) == before
    with pytest.raises(LocalProtocolError):
        await world.payee.settle(preimage)
    assert await world.payer.pay(bolt11, payment_hash, AMOUNT) == PayResult(payment_hash, None)
    assert await world.held() == 0


async def test_cancel_before_anybody_paid_refuses_the_payment(world: World, secret: Secret) -> None:
    _, payment_hash = secret()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    await world.payee.cancel(payment_hash)
    with trio.fail_after(PATIENCE_S):
        assert await world.payer.pay(bolt11, payment_hash, AMOUNT) == PayResult(payment_hash, None)
    assert await world.held() == 0


async def test_cancel_of_what_is_not_there_is_nothing_and_of_what_is_paid_an_error(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    await world.payee.cancel(payment_hash)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash) as results:
        await until(HoldState.ACCEPTED)
        await world.payee.settle(preimage)
    with pytest.raises(LocalProtocolError):
        await world.payee.cancel(payment_hash)
    assert results == [PayResult(payment_hash, preimage)]


async def test_hold_invoice_is_idempotent_per_hash(world: World, secret: Secret) -> None:
    _, payment_hash = secret()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    assert await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600) == bolt11
    with pytest.raises(LocalProtocolError):
        await world.payee.hold_invoice(payment_hash, Msat(AMOUNT + 1), CLTV, 3600)


async def test_what_is_not_settled_comes_back_at_its_expiry(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    before = await both(world)
    height = await world.payer.block_height()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash) as results:
        accepted = await until(HoldState.ACCEPTED)
        await world.mine(CLTV - 24)
        assert await world.held() == AMOUNT
        assert results == []
        await world.mine(accepted.cltv_expiry - height - (CLTV - 24))
        await until(HoldState.CANCELLED)
    assert results == [PayResult(payment_hash, None)]
    assert await both(world) == before
    assert await world.payer.block_height() == accepted.cltv_expiry
    with pytest.raises(LocalProtocolError):
        await world.payee.settle(preimage)


async def test_what_the_payer_has_not_is_refused_for_good(world: World, secret: Secret) -> None:
    _, payment_hash = secret()
    before = await both(world)
    amount = Msat(sum(FUNDS.values()) + 1)
    bolt11 = await world.payee.hold_invoice(payment_hash, amount, CLTV, 3600)
    with trio.fail_after(PATIENCE_S):
        for _ in range(2):
            assert await world.payer.pay(bolt11, payment_hash, amount) == PayResult(payment_hash, None)
    assert await both(world) == before
    assert await world.held() == 0


async def test_an_invoice_for_something_else_is_not_paid(world: World, secret: Secret) -> None:
    _, payment_hash = secret()
    _, other = secret()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    await world.payee.hold_invoice(other, AMOUNT, CLTV, 3600)
    with trio.fail_after(PATIENCE_S):
        assert await world.payer.pay(bolt11, other, AMOUNT) == PayResult(other, None)
        assert await world.payer.pay(bolt11, payment_hash, Msat(AMOUNT - 1)) == PayResult(payment_hash, None)
        assert await world.payer.pay("lnbcrt1nonsense", payment_hash, AMOUNT) == PayResult(payment_hash, None)
    assert await world.held() == 0


async def test_duplicate_payments_join_the_first(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash, times=SEVERAL) as results:
        await until(HoldState.ACCEPTED)
        assert await world.held() == AMOUNT
        await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)] * SEVERAL
    assert await world.payer.pay(bolt11, payment_hash, AMOUNT) == PayResult(payment_hash, preimage)
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_nothing_is_settled_that_was_not_accepted(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    with pytest.raises(LocalProtocolError):
        await world.payee.settle(preimage)
    await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    with pytest.raises(LocalProtocolError):
        await world.payee.settle(preimage)


async def test_funds_are_what_the_channels_can_carry_now(world: World, secret: Secret) -> None:
    def spendable(funds: NodeFunds) -> int:
        return sum(peer.spendable_msat for peer in funds.peers if peer.connected)

    preimage, payment_hash = secret()
    before = await world.payer.funds()
    assert before.syncing is None
    assert before.height == await world.payer.block_height()
    assert all(peer.slots_out > 0 and peer.slots_in > 0 for peer in before.peers)
    assert spendable(before) > AMOUNT
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash):
        await until(HoldState.ACCEPTED)
        assert spendable(before) - spendable(await world.payer.funds()) >= AMOUNT, "what is held cannot be spent"
        await world.payee.settle(preimage)
    await world.crash("payer")
    with trio.fail_after(PATIENCE_S), pytest.raises(Unavailable):
        await world.payer.funds()
    await world.start("payer")
    assert (await world.payer.funds()).peers


async def test_the_height_follows_the_chain(world: World) -> None:
    height = await world.payer.block_height()
    await world.mine(SEVERAL)
    assert [await node.block_height() for node in (world.payer, world.payee)] == [height + SEVERAL] * 2
