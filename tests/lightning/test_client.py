"""The rest of the client: what it believes of a node that is catching up or talks nonsense, and what the simnet's faults do to it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio
from coincurve import PrivateKey

from nostrain.errors import ConfigError, LocalProtocolError, OutcomeUnknown, Unavailable
from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import HoldState, HoldUpdate, PayResult
from nostrain.units import BlockHeight, Digest, Msat, UnixTime
from nostrain.wire.bolt11 import Bolt11, encode_bolt11, parse_bolt11_untrusted
from tests.lightning.scripted_node import INFO, NODE_ID, ScriptedNode, fail, say, send
from tests.simnet.conftest import PATIENCE_S, World

Call = Callable[[ClnLightning], Awaitable[object]]
AMOUNT = Msat(10_000_000)
PREIMAGE = "42" * 32
HASH = Digest(hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest())
KEY = PrivateKey(b"\x02" * 32)
KEY_ID = KEY.public_key.format().hex()
TERMS = Bolt11(
    currency="bcrt",
    payment_hash=HASH,
    payment_secret="33" * 32,
    created_at=UnixTime(int(time.time())),
    amount_msat=AMOUNT,
    description="",
    min_final_cltv=144,
)


def bolt11(**changes: object) -> str:
    return encode_bolt11(msgspec.structs.replace(TERMS, **changes), KEY.sign_recoverable)


def held(state: str = "unpaid", **changes: object) -> dict[str, object]:
    return {"payment_hash": HASH, "invoice": bolt11(), "state": state, "htlcs": []} | changes


def client(world: World, name: str, *, timeout_s: float = PATIENCE_S) -> ClnLightning:
    return ClnLightning(world.path(name), hold_poll_s=0.01, timeout_s=timeout_s)


@pytest.mark.parametrize("warning", ["warning_bitcoind_sync", "warning_lightningd_sync"])
async def test_a_node_that_is_catching_up_has_no_height(node: ScriptedNode, warning: str) -> None:
    node.script("getinfo", say(INFO | {warning: "still loading"}), say(INFO))
    with pytest.raises(Unavailable, match="catching up: still loading"):
        await ClnLightning(node.path).block_height()
    node.script("waitblockheight", say({"blockheight": INFO["blockheight"] + 1}))
    assert await ClnLightning(node.path).block_height() == INFO["blockheight"] + 1, "not what gossipd has seen"
    assert node.params("waitblockheight") == {"blockheight": 0}


async def test_a_node_on_another_network_is_refused_and_paid_with_nothing(node: ScriptedNode) -> None:
    wrong = ClnLightning(node.path, network="bitcoin")
    calls: tuple[Call, ...] = (
        lambda client: client.info(),
        lambda client: client.block_height(),
        lambda client: client.pay(bolt11(), HASH, AMOUNT),
        lambda client: client.hold_invoice(HASH, AMOUNT, 144, 3600),
    )
    node.script("listholdinvoices", say({"holdinvoices": []}))
    node.script("listinvoices", say({"invoices": []}))
    for call in calls:
        with pytest.raises(ConfigError, match="is on 'regtest'") as refused:
            await call(wrong)
        assert refused.value.key == "lightning.network"
    assert not {"sendpay", "xpay", "injectholdinvoice", "signinvoice"} & set(node.methods())
    assert (await ClnLightning(node.path, network="regtest").info()).network == "regtest"


async def test_a_missing_hold_plugin_is_named(node: ScriptedNode) -> None:
    with pytest.raises(Unavailable, match=r"listholdinvoices.*plugin"):
        await ClnLightning(node.path).hold_invoice(HASH, AMOUNT, 144, 3600)


async def test_a_hash_in_use_elsewhere_is_our_error(node: ScriptedNode) -> None:
    node.script("listholdinvoices", say({"holdinvoices": []}))
    node.script("listinvoices", say({"invoices": [{"payment_hash": HASH}]}))
    with pytest.raises(LocalProtocolError, match="ordinary invoice"):
        await ClnLightning(node.path).hold_invoice(HASH, AMOUNT, 144, 3600)


@pytest.mark.parametrize(
    "signed",
    [
        bolt11(amount_msat=Msat(1)),
        bolt11(min_final_cltv=18),
        bolt11(payment_hash=Digest("00" * 32)),
        bolt11(),
        "lnbcrt1nonsense",
    ],
)
async def test_another_invoice_than_we_asked_for_is_not_handed_on(node: ScriptedNode, signed: str) -> None:
    node.script("listholdinvoices", say({"holdinvoices": []}))
    node.script("listinvoices", say({"invoices": []}))
    node.script("signinvoice", say({"bolt11": signed}))
    with pytest.raises(Unavailable, match="signinvoice"):
        await ClnLightning(node.path).hold_invoice(HASH, AMOUNT, 144, 3600)
    assert "injectholdinvoice" not in node.methods()


async def test_an_invoice_that_appeared_meanwhile_is_taken(node: ScriptedNode) -> None:
    node.script("getinfo", say(INFO | {"id": KEY_ID}))
    node.script("listholdinvoices", say({"holdinvoices": []}), say({"holdinvoices": [held()]}))
    node.script("listinvoices", say({"invoices": []}))
    node.script("signinvoice", say({"bolt11": bolt11(payment_secret="44" * 32)}))
    node.script("injectholdinvoice", fail(-32700, "UNIQUE constraint failed"))
    assert await ClnLightning(node.path).hold_invoice(HASH, AMOUNT, 144, 3600) == bolt11()
    assert node.params("injectholdinvoice") == {"invoice": bolt11(payment_secret="44" * 32), "min_cltv": 144}


@pytest.mark.parametrize(
    ("listed", "htlcs", "error"),
    [
        ([held("paid")], [], None),
        ([held("cancelled")], [], LocalProtocolError),
        ([held("unpaid")], [], LocalProtocolError),
        ([], [], LocalProtocolError),
        ([held("accepted")], [], LocalProtocolError),
        ([held("accepted")], [{"direction": "in", "amount_msat": 1, "payment_hash": HASH}], Unavailable),
    ],
)
async def test_a_settlement_that_fails_is_looked_into(
    node: ScriptedNode, listed: list[object], htlcs: list[object], error: type[Exception] | None
) -> None:
    node.script("settleholdinvoice", fail(-32700, "no HTLCs to settle"))
    node.script("listholdinvoices", say({"holdinvoices": listed}))
    channel = {"peer_id": NODE_ID, "peer_connected": True, "state": "CHANNELD_NORMAL", "htlcs": htlcs}
    node.script("listpeerchannels", say({"channels": [channel]}))
    if error is None:
        await ClnLightning(node.path).settle(PREIMAGE)
    else:
        with pytest.raises(error):
            await ClnLightning(node.path).settle(PREIMAGE)
    assert node.params("settleholdinvoice") == {"preimage": PREIMAGE}


@pytest.mark.parametrize(
    ("listed", "error"),
    [([], None), ([held("cancelled")], None), ([held("paid")], LocalProtocolError), ([held("accepted")], Unavailable)],
)
async def test_a_cancellation_that_fails_is_looked_into(node: ScriptedNode, listed: list[object], error: type[Exception] | None) -> None:
    node.script("cancelholdinvoice", fail(-32700))
    node.script("listholdinvoices", say({"holdinvoices": listed}))
    if error is None:
        await ClnLightning(node.path).cancel(HASH)
    else:
        with pytest.raises(error):
            await ClnLightning(node.path).cancel(HASH)
    assert node.params("cancelholdinvoice") == {"payment_hash": HASH}


async def test_changes_are_told_once_with_the_smallest_expiry(node: ScriptedNode) -> None:
    htlcs = [
        {"state": "cancelled", "msat": 1, "cltv_expiry": 5},
        {"state": "accepted", "msat": 1, "cltv_expiry": 30},
        {"state": "accepted", "msat": 1, "cltv_expiry": 20},
        {"state": "accepted", "msat": 1, "cltv_expiry": None},
    ]
    accepted = say({"holdinvoices": [held("accepted", htlcs=htlcs)]})
    node.script("listholdinvoices", say({"holdinvoices": [held()]}), accepted, accepted, say({"holdinvoices": [held("paid")]}))
    with trio.fail_after(PATIENCE_S):
        async with ClnLightning(node.path, hold_poll_s=0.001).holds() as updates:
            assert [await updates.receive() for _ in range(3)] == [
                HoldUpdate(HASH, HoldState.UNPAID, AMOUNT),
                HoldUpdate(HASH, HoldState.ACCEPTED, AMOUNT, BlockHeight(20)),
                HoldUpdate(HASH, HoldState.PAID, AMOUNT),
            ]


@pytest.mark.parametrize("listed", [held("melted"), held(invoice="lnbcrt1nonsense"), {"payment_hash": HASH}])
async def test_nonsense_about_holds_ends_the_updates(node: ScriptedNode, listed: dict[str, object]) -> None:
    node.script("listholdinvoices", say({"holdinvoices": [listed]}))

    async def follow() -> list[HoldUpdate]:
        async with ClnLightning(node.path).holds() as updates:
            return [update async for update in updates]

    with trio.fail_after(PATIENCE_S), pytest.raises(Unavailable, match="listholdinvoices"):
        await follow()


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


async def test_an_invoice_that_the_node_will_not_make_is_not_available(node: ScriptedNode) -> None:
    node.script("invoice", fail(-1), fail(900), say({"payment_hash": HASH}))
    node.script("listinvoices", say({"invoices": []}))
    for _ in range(3):
        with pytest.raises(Unavailable, match="invoice"):
            await ClnLightning(node.path).invoice("x", AMOUNT, "", 60)


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


async def accepted(payee: ClnLightning) -> None:
    """Return when a hold invoice of this node is accepted."""
    with trio.fail_after(PATIENCE_S):
        async with payee.holds() as updates:
            async for update in updates:
                if update.state is HoldState.ACCEPTED:
                    return


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
        ("waitblockheight", lambda node: node.wait_block(BlockHeight(1))),
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


async def test_a_height_that_does_not_come_is_not_waited_for_for_ever(node: ScriptedNode) -> None:
    node.script("waitblockheight", fail(2000, "Timed out."), send())
    for _ in range(2):
        with pytest.raises(Unavailable):
            await ClnLightning(node.path).wait_block(BlockHeight(9), timeout_s=1)
    assert node.params("waitblockheight") == {"blockheight": 9, "timeout": 1}


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
