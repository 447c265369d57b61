"""Payments as Core Lightning and the hold plugin treat them: what may be sent again, slots, reserve, expiry, invoices, parts."""

from __future__ import annotations

import hashlib
import time
from typing import Any

import pytest
import trio

from nostrain.devnet.simnet import receiving
from tests.simnet.conftest import Failed, World
from tests.simnet.holds import settled, state

COMMITMENT_SLOTS = 30


async def test_a_hold_invoice_lives_as_in_the_plugin(world: World) -> None:
    preimage, invoice = await world.held_invoice("w", 2_112)
    assert (invoice["amount_msat"], invoice["min_final_cltv_expiry"], invoice["valid"]) == (2_112, 80, True)
    assert await state(world, invoice) == "unpaid"
    assert (await world.send("c", invoice))["status"] == "pending"
    listed = (await world.ask("w", "listholdinvoices", invoice=invoice["bolt11"]))["holdinvoices"][0]
    assert (listed["state"], "preimage" in listed, "settled_at" in listed) == ("accepted", False, False)
    (htlc,) = listed["htlcs"]
    assert (htlc["state"], htlc["msat"], htlc["cltv_expiry"]) == ("accepted", 2_112, world.network.height + 81)
    await settled(world, preimage)
    await settled(world, preimage)
    listed = (await world.ask("w", "listholdinvoices", payment_hash=invoice["payment_hash"]))["holdinvoices"][0]
    assert (listed["state"], listed["preimage"], listed["htlcs"][0]["state"]) == ("paid", preimage, "paid")
    assert (await world.wait("c", invoice))["status"] == "complete"
    with pytest.raises(Failed, match="final"):
        await world.ask("w", "cancelholdinvoice", payment_hash=invoice["payment_hash"])


async def test_an_injected_invoice_must_be_the_nodes_own(world: World) -> None:
    _, invoice = await world.held_invoice("w", 1_000)
    with pytest.raises(Failed, match="not related to us"):
        await world.ask("v", "injectholdinvoice", invoice=invoice["bolt11"])
    with pytest.raises(Failed, match="UNIQUE"):
        await world.ask("w", "injectholdinvoice", invoice=invoice["bolt11"], min_cltv=10)
    signed = (await world.ask("v", "signinvoice", invstring=invoice["bolt11"]))["bolt11"]
    assert await world.ask("v", "injectholdinvoice", invoice=signed, min_cltv=200) == {}
    assert (await world.ask("v", "listholdinvoices"))["holdinvoices"][0]["min_cltv"] == 200
    channel = next(row for row in (await world.ask("v", "listpeerchannels"))["channels"])
    there = {"id": (await world.ask("v", "getinfo"))["id"], "channel": channel["short_channel_id"], "amount_msat": 1_000, "delay": 190}
    secret = (await world.ask("v", "decode", string=signed))["payment_secret"]
    await world.ask("c", "sendpay", route=[there], payment_hash=invoice["payment_hash"], payment_secret=secret)
    with pytest.raises(Failed, match="INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS"):
        await world.wait("c", invoice)


@pytest.mark.parametrize("change", [{"payment_secret": "22" * 32}, {"payment_hash": "33" * 32}])
async def test_a_wrong_secret_or_hash_is_refused_for_good_by_the_destination(world: World, change: dict[str, str]) -> None:
    _, invoice = await world.held_invoice("w", 1_000)
    await world.send("c", invoice, **change)
    with pytest.raises(Failed, match="WIRE_INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS") as failed:
        await world.wait("c", invoice | change)
    assert failed.value.code == 203
    assert failed.value.data["status"] == "failed"
    assert await state(world, invoice) == "unpaid"


async def test_the_same_part_joins_and_other_parts_are_refused(world: World) -> None:
    preimage, invoice = await world.held_invoice("w", 1_000)
    with pytest.raises(Failed, match="Never attempted") as never:
        await world.wait("c", invoice)
    assert never.value.code == 208
    first = await world.send("c", invoice, groupid=1)
    assert (await world.send("c", invoice, groupid=1))["id"] == first["id"]
    with pytest.raises(Failed, match="still in progress") as busy:
        await world.send("c", invoice)
    assert busy.value.code == 200
    with pytest.raises(Failed, match="Already pending with amount") as other:
        await world.send("c", invoice | {"amount_msat": 999}, groupid=1)
    assert other.value.code == 201
    with pytest.raises(Failed, match="Timed out") as slow:
        await world.ask("c", "waitsendpay", payment_hash=invoice["payment_hash"], timeout=0)
    assert slow.value.code == 200
    await settled(world, preimage)
    assert (await world.send("c", invoice))["payment_preimage"] == preimage
    (payment,) = (await world.ask("c", "listsendpays", payment_hash=invoice["payment_hash"], status="failed"))["payments"]
    assert payment["status"] == "complete"
    assert (await world.balance("c"))["balance_msat"] == world.funds["c"] - 1_000


async def test_a_group_that_failed_is_not_used_again(world: World) -> None:
    preimage, invoice = await world.held_invoice("w", 1_000)
    await world.ask("simnet", "simnet-fault", kind="fail-part", node="c", count=1)
    assert (await world.send("c", invoice, groupid=1))["status"] == "pending"
    with pytest.raises(Failed, match="WIRE_TEMPORARY_CHANNEL_FAILURE") as failed:
        await world.wait("c", invoice)
    assert failed.value.code == 204
    with pytest.raises(Failed, match="There already is a payment") as again:
        await world.send("c", invoice, groupid=1)
    assert again.value.code == 201
    assert (await world.send("c", invoice))["groupid"] == 2
    await settled(world, preimage)
    assert (await world.wait("c", invoice))["groupid"] == 2


async def test_thirty_htlcs_fit_and_the_next_fails(world: World) -> None:
    invoices = [await world.held_invoice("w", 1_000) for _ in range(COMMITMENT_SLOTS + 1)]
    for _, invoice in invoices:
        await world.send("c", invoice)
    assert (await world.balance("c"))["held_msat"] == COMMITMENT_SLOTS * 1_000
    with pytest.raises(Failed, match="Too many HTLCs"):
        await world.wait("c", invoices[-1][1])
    await settled(world, invoices[0][0])
    again = await world.held_invoice("w", 1_000)
    await world.send("c", again[1])
    assert await state(world, again[1]) == "accepted"


async def test_the_reserve_cannot_be_sent(world: World) -> None:
    channel = (await world.ask("w", "listpeerchannels"))["channels"][0]
    assert channel["our_reserve_msat"] == channel["total_msat"] // 100
    assert channel["spendable_msat"] == channel["to_us_msat"] - channel["our_reserve_msat"]
    for amount, fits in ((channel["spendable_msat"] + 1, False), (channel["spendable_msat"], True)):
        _, invoice = await world.held_invoice("c", amount)
        await world.send("w", invoice)
        assert (await world.balance("w"))["held_msat"] == (amount if fits else 0)
    with pytest.raises(Failed, match="Capacity exceeded"):
        await world.wait("w", (await poor(world))[1])


async def poor(world: World) -> tuple[str, dict[str, object]]:
    """An invoice that the worker tried to pay with nothing left."""
    preimage, invoice = await world.held_invoice("c", 1)
    await world.send("w", invoice)
    return preimage, invoice


async def test_the_plugin_cancels_24_blocks_before_an_htlc_runs_out(world: World) -> None:
    preimage, invoice = await world.held_invoice("w", 1_000)
    await world.send("c", invoice)
    await world.ask("simnet", "simnet-mine", blocks=56)
    assert await state(world, invoice) == "accepted"
    await world.ask("simnet", "simnet-mine", blocks=1)
    assert await state(world, invoice) == "cancelled"
    with pytest.raises(Failed, match="INCORRECT_OR_UNKNOWN"):
        await world.wait("c", invoice)
    with pytest.raises(Failed, match="no HTLCs to settle"):
        await settled(world, preimage)
    assert (await world.ask("w", "listpeerchannels"))["channels"][0]["state"] == "CHANNELD_NORMAL"


async def test_an_htlc_that_nobody_resolves_takes_its_channel_to_the_chain(world: World) -> None:
    preimage, invoice = await world.held_invoice("w", 1_000)
    await world.send("c", invoice)
    await world.ask("simnet", "simnet-fault", kind="crash", node="w")
    height = (await world.ask("simnet", "simnet-fault", kind="expire", payment_hash=invoice["payment_hash"]))["blockheight"]
    with pytest.raises(Failed, match="PERMANENT_CHANNEL_FAILURE"):
        await world.wait("c", invoice)
    await world.ask("simnet", "simnet-fault", kind="start", node="w")
    assert (await world.ask("w", "getinfo"))["blockheight"] == height
    with pytest.raises(Failed, match="no HTLCs to settle"):
        await settled(world, preimage)
    channel = (await world.ask("w", "listpeerchannels"))["channels"][0]
    assert (channel["state"], channel["spendable_msat"]) == ("ONCHAIN", 0)
    assert (await world.balance("w"))["balance_msat"] == world.funds["w"]
    _, another = await world.held_invoice("w", 1_000)
    with pytest.raises(Failed, match="No connection to first peer"):
        await world.send("c", another)


async def test_invoices_are_made_paid_listed_and_deleted(world: World) -> None:
    made = await world.ask("c", "invoice", amount_msat="5000msat", label="fee/1", description="ticket", expiry=60)
    decoded = await world.ask("w", "decode", string=made["bolt11"])
    assert (decoded["amount_msat"], decoded["description"], decoded["expiry"]) == (5_000, "ticket", 60)
    with pytest.raises(Failed) as duplicate:
        await world.ask("c", "invoice", amount_msat=5_000, label="fee/1", description="")
    assert duplicate.value.code == 900
    with pytest.raises(Failed) as wrong:
        await world.ask("c", "delinvoice", label="fee/1", status="paid")
    assert (wrong.value.code, wrong.value.data) == (906, {"current_status": "unpaid", "expected_status": "paid"})
    paid = await world.ask("w", "xpay", invstring=made["bolt11"])
    assert (paid["amount_msat"], paid["successful_parts"]) == (5_000, 1)
    assert hashlib.sha256(bytes.fromhex(paid["payment_preimage"])).hexdigest() == made["payment_hash"]
    (listed,) = (await world.ask("c", "listinvoices", label="fee/1"))["invoices"]
    assert (listed["status"], listed["payment_preimage"]) == ("paid", paid["payment_preimage"])
    with pytest.raises(Failed) as again:
        await world.ask("w", "xpay", invstring=made["bolt11"])
    assert again.value.code == 219
    await world.ask("c", "delinvoice", label="fee/1", status="paid")
    assert await world.ask("c", "listinvoices") == {"invoices": []}
    assert (await world.balance("c"))["balance_msat"] == world.funds["c"] + 5_000


async def test_xpay_goes_through_the_hub_and_all_its_htlcs_end_together(world: World) -> None:
    preimage, invoice = await world.held_invoice("v", 1_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.ask("w", "xpay", invstring=invoice["bolt11"]))
        while not (await world.balance("v"))["incoming_msat"]:
            await trio.lowlevel.checkpoint()
        assert [(await world.balance(name))["held_msat"] for name in "wcv"] == [1_000, 1_000, 0]
        near, far = (channel.htlcs[0].cltv_expiry for channel in world.network.channels)
        assert near == far + 34
        await world.ask("v", "settleholdinvoice", preimage=preimage)
    assert [(await world.balance(name))["balance_msat"] for name in "wcv"] == [49_999_000, 2_000_000_000, 1_000]


@pytest.mark.parametrize(("amount", "code"), [(10**10, 205), (1_000, 203)])
async def test_xpay_says_why_it_cannot(world: World, amount: int, code: int) -> None:
    _, invoice = await world.held_invoice("v", amount)
    await world.ask("v", "cancelholdinvoice", payment_hash=invoice["payment_hash"])
    with pytest.raises(Failed) as failed:
        await world.ask("w", "xpay", invstring=invoice["bolt11"])
    assert failed.value.code == code


async def send_part(world: World, invoice: dict[str, Any], partid: int, amount: int) -> None:
    await world.send("c", invoice | {"amount_msat": amount}, partid=partid, groupid=1, amount_msat=invoice["amount_msat"])


async def test_parts_are_held_until_they_are_all_there(world: World) -> None:
    preimage, invoice = await world.held_invoice("w", 1_000)
    await send_part(world, invoice, 1, 400)
    assert await state(world, invoice) == "unpaid"
    with pytest.raises(Failed, match="parallel payment in progress"):
        await world.send("c", invoice, groupid=1)
    await send_part(world, invoice, 2, 600)
    assert await state(world, invoice) == "accepted"
    with pytest.raises(Failed, match="Already have 1000msat of 1000msat"):
        await send_part(world, invoice, 3, 1)
    await settled(world, preimage)
    payments = (await world.ask("c", "listsendpays", payment_hash=invoice["payment_hash"]))["payments"]
    assert [(payment["partid"], payment["amount_msat"], payment["status"]) for payment in payments] == [
        (1, 400, "complete"),
        (2, 600, "complete"),
    ]
    assert (await world.balance("w"))["balance_msat"] == world.funds["w"] + 1_000


@pytest.mark.parametrize("hold", [True, False])
async def test_parts_whose_rest_does_not_come_go_back(world: World, hold: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _, invoice = await world.held_invoice("w", 1_000)
    if not hold:
        made = await world.ask("w", "invoice", amount_msat=1_000, label="x", description="", cltv=80)
        invoice = await world.ask("w", "decode", string=made["bolt11"])
    await send_part(world, invoice, 1, 400)
    receiving.drop_partial_sets(world.network)
    assert (await world.balance("c"))["held_msat"] == 400
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    receiving.drop_partial_sets(world.network)
    assert (await world.balance("c"))["held_msat"] == 0
    with pytest.raises(Failed, match="WIRE_MPP_TIMEOUT") as failed:
        await world.ask("c", "waitsendpay", payment_hash=invoice["payment_hash"], partid=1, groupid=1)
    assert failed.value.code == 204
