"""The client and the simnet's faults: lost requests and replies, stalls, nodes that are killed in between."""

from __future__ import annotations

import pytest
import trio

from nostrain.errors import LocalProtocolError, OutcomeUnknown, Unavailable
from nostrain.ports.lightning import HoldState, PayResult
from nostrain.units import Digest, Msat
from nostrain.wire.bolt11 import parse_bolt11_untrusted
from tests.lightning.holds import AMOUNT, HASH, PREIMAGE, Call, accepted, client
from tests.simnet.conftest import PATIENCE_S, World


async def test_an_ordinary_invoice_is_idempotent_per_label(world: World) -> None:
    seller, buyer = client(world, "c"), client(world, "w")
    made = await seller.invoice("fee/1", AMOUNT, "ticket", 600)
    assert await seller.invoice("fee/1", AMOUNT, "ticket", 600) == made
    terms = parse_bolt11_untrusted(made.bolt11)
    assert (terms.payment_hash, terms.amount_msat, terms.description, terms.expiry_s) == (made.payment_hash, AMOUNT, "ticket", 600)
    with pytest.raises(LocalProtocolError, match="label"):
        await seller.invoice("fee/1", Msat(1), "ticket", 600)
    result = await buyer.pay(made.bolt11, made.payment_hash, AMOUNT)
    assert result.preimage is not None
    assert (await seller.invoice("fee/1", AMOUNT, "ticket", 600)).paid
    with pytest.raises(LocalProtocolError, match="ordinary"):
        await seller.hold_invoice(made.payment_hash, AMOUNT, 144, 600)


async def test_balances_show_what_is_held_and_the_slots(world: World) -> None:
    payer, payee = client(world, "c"), client(world, "w")
    before = await payer.balances()
    made = await payee.hold_invoice(HASH, AMOUNT, 144, 600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(payer.pay, made, HASH, AMOUNT)
        async with payee.holds() as updates:
            while (await updates.receive()).state is not HoldState.ACCEPTED:
                pass
        mine, theirs = await payer.balances(), await payee.balances()
        assert (mine.held_msat, mine.incoming_msat, mine.spendable_msat) == (AMOUNT, 0, before.spendable_msat - AMOUNT)
        assert (theirs.held_msat, theirs.incoming_msat) == (0, AMOUNT)
        assert [(channel.htlcs_out, channel.max_accepted_htlcs) for channel in mine.channels] == [(1, 30), (0, 30)]
        assert theirs.receivable_msat == mine.channels[0].spendable_msat
        await payee.cancel(HASH)
    assert await payer.balances() == before


async def test_a_stranger_is_paid_by_xpay_through_the_hub_and_a_lost_reply_reconciled(world: World) -> None:
    payer, payee = client(world, "w"), client(world, "v")
    made = await payee.hold_invoice(HASH, AMOUNT, 144, 600)
    await world.ask("simnet", "simnet-fault", kind="lose-reply", node="w", method="xpay")
    with pytest.raises(OutcomeUnknown):
        await payer.pay(made, HASH, AMOUNT)
    results: list[PayResult] = []

    async def pay() -> None:
        results.append(await payer.pay(made, HASH, AMOUNT))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pay)
        await accepted(payee)
        await payee.settle(PREIMAGE)
    assert results == [PayResult(HASH, PREIMAGE)]
    assert (await world.balance("w"))["balance_msat"] == world.funds["w"] - AMOUNT
    assert (await world.balance("c"))["balance_msat"] == world.funds["c"]


async def test_a_request_that_was_lost_is_sent_again_and_a_failed_part_is_not(world: World) -> None:
    payer, payee = client(world, "c"), client(world, "w")
    made = await payee.hold_invoice(HASH, AMOUNT, 144, 600)
    await world.ask("simnet", "simnet-fault", kind="lose-request", node="c", method="sendpay")
    with pytest.raises(OutcomeUnknown):
        await payer.pay(made, HASH, AMOUNT)
    await world.ask("simnet", "simnet-fault", kind="fail-part", node="c")
    for _ in range(2):
        assert await payer.pay(made, HASH, AMOUNT) == PayResult(HASH, None)
    assert len((await world.ask("c", "listsendpays"))["payments"]) == 1


@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("signinvoice", lambda node: node.hold_invoice(Digest("55" * 32), AMOUNT, 144, 600)),
        ("injectholdinvoice", lambda node: node.hold_invoice(Digest("55" * 32), AMOUNT, 144, 600)),
        ("settleholdinvoice", lambda node: node.settle(PREIMAGE)),
        ("cancelholdinvoice", lambda node: node.cancel(HASH)),
        ("invoice", lambda node: node.invoice("x", AMOUNT, "", 60)),
        ("listpeerchannels", lambda node: node.balances()),
    ],
)
@pytest.mark.parametrize("kind", ["lose-reply", "lose-request"])
async def test_what_was_lost_is_simply_asked_again(world: World, method: str, call: Call, kind: str) -> None:
    payer, payee = client(world, "c"), client(world, "w")
    made = await payee.hold_invoice(HASH, AMOUNT, 144, 600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(payer.pay, made, HASH, AMOUNT)
        await accepted(payee)
        await world.ask("simnet", "simnet-fault", kind=kind, node="w", method=method)
        with pytest.raises(Unavailable):
            await call(payee)
        for _ in range(2):
            await call(payee)
        nursery.cancel_scope.cancel()
    assert len((await world.ask("w", "listholdinvoices", payment_hash=HASH))["holdinvoices"]) == 1


async def test_a_stalled_node_is_unavailable_and_a_stalled_payment_unknown(world: World) -> None:
    payer, payee = client(world, "c", timeout_s=0.05), client(world, "w")
    made = await payee.hold_invoice(HASH, AMOUNT, 144, 600)
    await world.ask("simnet", "simnet-fault", kind="stall", node="c")
    with pytest.raises(Unavailable, match=r"no reply in 0\.05 s"):
        await payer.block_height()
    with pytest.raises(OutcomeUnknown):
        await payer.pay(made, HASH, AMOUNT)
    await world.ask("simnet", "simnet-fault", kind="resume", node="c")
    assert await payer.block_height() == world.network.height
    assert (await payer.info()).alias == "simnet-c"


async def test_what_a_killed_node_entered_and_never_sent_has_failed(world: World) -> None:
    payer = client(world, "c")
    made = await client(world, "w").hold_invoice(HASH, AMOUNT, 144, 3600)
    await world.ask("simnet", "simnet-fault", kind="forget-part", node="c")
    with trio.move_on_after(0.2):
        await payer.pay(made, HASH, AMOUNT)
    (part,) = (await world.ask("c", "listsendpays"))["payments"]
    assert part["status"] == "pending"
    await world.ask("simnet", "simnet-fault", kind="crash", node="c")
    await world.ask("simnet", "simnet-fault", kind="start", node="c")
    world.network.nodes["c"].started_at += 2  # lightningd's own times of payments are whole seconds
    with trio.fail_after(PATIENCE_S):
        assert await payer.pay(made, HASH, AMOUNT) == PayResult(HASH, None)
