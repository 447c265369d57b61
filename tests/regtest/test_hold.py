"""The hold plugin in real lightningds on a real chain: what becomes of a payment."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest
import trio

from nostrain.devnet.regtest.programs import missing
from nostrain.errors import LocalProtocolError
from nostrain.lightning.client import ClnLightning
from nostrain.lightning.rpc import ClnError
from nostrain.ports.lightning import HoldState
from nostrain.units import Digest, Msat
from tests.regtest.hold_world import AMOUNT, CLTV, FUNDS, slow, until, world

pytestmark = [pytest.mark.regtest, pytest.mark.timeout(240)]
if missing():
    pytestmark.append(pytest.mark.skip(reason=f"not on PATH: {', '.join(missing())}"))

DEADLINE = 24
MPP_TIMEOUT_S = 3


async def test_settle_cancel_and_what_is_refused() -> None:
    async with world() as here:
        settled = await here.bill(description="ein Test, äöü", expiry=600)
        decoded = await here.bob.ask("decode", string=settled.bolt11)
        assert (decoded["description"], decoded["expiry"], decoded["min_final_cltv_expiry"]) == ("ein Test, äöü", 600, CLTV)
        await here.send(settled)
        await here.held(settled)
        assert (await here.hold(settled))["htlcs"][0]["msat"] == AMOUNT
        await here.settle(settled)
        assert await here.paid(settled) == settled.preimage
        await here.settle(settled)

        cancelled = await here.bill()
        await here.send(cancelled)
        await here.held(cancelled)
        await here.bob.ask("cancelholdinvoice", payment_hash=cancelled.payment_hash)
        assert "INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS" in await here.refused(cancelled)
        with pytest.raises(ClnError, match="no HTLCs to settle"):
            await here.bob.ask("settleholdinvoice", preimage=cancelled.preimage)

        for wrong in (
            {"payment_secret": secrets.token_hex(32)},
            {"delay": CLTV - 2},
            {"share": 3 * AMOUNT, "amount_msat": 3 * AMOUNT},
        ):
            bill = await here.bill()
            await here.send(bill, **wrong)
            assert "INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS" in await here.refused(bill)
            assert (await here.hold(bill))["state"] == "unpaid"
        assert await here.spent() == AMOUNT


@slow
async def test_what_xpay_pays_and_what_is_not_ours() -> None:
    async with world() as here:
        ordinary = await here.bob.ask("invoice", amount_msat=AMOUNT, label="ordinary", description="not held")
        await here.alice.ask("xpay", invstring=ordinary["bolt11"])
        with pytest.raises(ClnError, match="in use by an ordinary invoice"):
            await here.bob.ask("holdinvoice", payment_hash=ordinary["payment_hash"], amount=AMOUNT)

        bill = await here.bill()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: here.alice.ask("xpay", invstring=bill.bolt11))
            await here.held(bill)
            await here.settle(bill)
        assert await here.spent() == 2 * AMOUNT


async def test_our_client_finds_what_it_expects() -> None:
    """`nostrain.lightning` speaks to BoltzExchange/hold's methods; this is the third that must agree, after the plugin and the simnet."""
    async with world() as here:
        client = ClnLightning(here.bob.socket, hold_poll_s=0.05)
        bill = await here.bill()
        own = Digest(secrets.token_hex(32))
        assert await client.hold_invoice(own, Msat(AMOUNT), CLTV, 600) == await client.hold_invoice(own, Msat(AMOUNT), CLTV, 600)
        await client.cancel(own)
        with pytest.raises(LocalProtocolError):
            await client.settle(bill.preimage)
        async with client.holds() as updates:
            states = {update.payment_hash: update.state for update in [await updates.receive(), await updates.receive()]}
            assert states == {bill.payment_hash: HoldState.UNPAID, own: HoldState.CANCELLED}
            await here.send(bill)
            accepted = await updates.receive()
            height = await client.block_height()
            assert (accepted.state, accepted.amount_msat, accepted.cltv_expiry) == (HoldState.ACCEPTED, AMOUNT, height + CLTV + 1)
            await client.settle(bill.preimage)
            assert (await updates.receive()).state is HoldState.PAID
        await client.settle(bill.preimage)
        with pytest.raises(LocalProtocolError):
            await client.cancel(Digest(bill.payment_hash))
        assert await here.paid(bill) == bill.preimage


async def test_parts_are_held_until_all_are_there_and_sent_back_if_not() -> None:
    async with world(f"--hold-mpp-timeout={MPP_TIMEOUT_S}") as here:
        bill = await here.bill()
        await here.send(bill, partid=1, share=AMOUNT // 2)
        await here.send(bill, partid=2, share=AMOUNT // 2)
        await here.held(bill, htlcs=2)
        await here.settle(bill)
        assert await here.paid(bill, 1) == await here.paid(bill, 2) == bill.preimage

        alone = await here.bill()
        await here.send(alone, partid=1, share=AMOUNT // 2)
        with pytest.raises(ClnError, match="no HTLCs to settle"):
            await here.bob.ask("settleholdinvoice", preimage=alone.preimage)
        assert "MPP_TIMEOUT" in await here.refused(alone, 1)
        assert (await here.hold(alone))["state"] == "unpaid"
        await here.send(alone, groupid=2)
        await here.held(alone)
        await here.bob.ask("cancelholdinvoice", payment_hash=alone.payment_hash)
        assert await here.spent() == AMOUNT


@slow
async def test_what_nobody_settles_is_sent_back_24_blocks_before_it_expires() -> None:
    async with world() as here:
        bill = await here.bill()
        await here.send(bill)
        await here.held(bill)
        expiry = (await here.hold(bill))["htlcs"][0]["cltv_expiry"]
        height = (await here.bob.ask("getinfo"))["blockheight"]
        await here.network.mine(expiry - DEADLINE - 1 - height)
        assert (await here.hold(bill))["state"] == "accepted"
        await here.network.mine(1)
        assert "INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS" in await here.refused(bill)
        assert (await here.hold(bill))["state"] == "cancelled"
        with pytest.raises(ClnError, match="no HTLCs to settle"):
            await here.bob.ask("settleholdinvoice", preimage=bill.preimage)
        assert await here.spent() == 0
        assert {channel["state"] for channel in await here.bob.channels()} == {"CHANNELD_NORMAL"}


@slow
async def test_a_node_that_comes_back_too_late_does_not_settle() -> None:
    """Its lightningd was down when the last moment passed: the HTLC that it is handed again is sent back at once."""
    async with world() as here:
        bill = await here.bill()
        await here.send(bill)
        await here.held(bill)
        expiry = (await here.hold(bill))["htlcs"][0]["cltv_expiry"]
        height = (await here.bob.ask("getinfo"))["blockheight"]
        await here.bob.stop()
        await here.network.mine(expiry - DEADLINE - height)
        await here.network.restart("bob")
        assert "INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS" in await here.refused(bill)
        assert (await here.hold(bill))["state"] == "cancelled"
        assert await here.spent() == 0


@slow
async def test_many_at_once() -> None:
    """As many as a channel has room for: held, settled and cancelled together."""
    async with world() as here:
        bills = [await here.bill(1_000_000) for _ in range(30)]
        for bill in bills:
            await here.send(bill)
        for bill in bills:
            await here.held(bill)
        async with trio.open_nursery() as nursery:
            for bill in bills[:20]:
                nursery.start_soon(here.settle, bill)
            for bill in bills[20:]:
                nursery.start_soon(lambda bill=bill: here.bob.ask("cancelholdinvoice", payment_hash=bill.payment_hash))
        assert [await here.paid(bill) for bill in bills[:20]] == [bill.preimage for bill in bills[:20]]
        for bill in bills[20:]:
            await here.refused(bill)
        assert await here.spent() == 20_000_000
        assert (await here.network.balances())["bob"].balance_msat == FUNDS["bob"] + 20_000_000


@slow
async def test_the_options_survive_a_restart_of_the_plugin() -> None:
    """lightningd keeps them from its command line, and hands them over again."""
    async with world("--hold-expiry-deadline=30") as here:
        with pytest.raises(ClnError, match="the last 30 are for cancelling"):
            await here.bill(min_final_cltv_expiry=30)
        old = await here.kill("nostrain-hold")
        await here.back("nostrain-hold", old)

        async def refused() -> bool:
            with pytest.raises(ClnError) as caught:
                await here.bill(min_final_cltv_expiry=30)
            return "the last 30 are for cancelling" in caught.value.message

        await until(refused)
        assert replace(await here.bill(min_final_cltv_expiry=31), amount_msat=0).amount_msat == 0
