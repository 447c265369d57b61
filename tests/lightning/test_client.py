"""What the client believes of a node that is catching up, refuses, or talks nonsense."""

from __future__ import annotations

import pytest
import trio
from coincurve import PrivateKey

from nostrain.errors import ConfigError, LocalProtocolError, Unavailable
from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import HoldState, HoldUpdate
from nostrain.units import BlockHeight, Digest, Msat
from tests.lightning.holds import AMOUNT, HASH, PREIMAGE, Call, signed
from tests.lightning.scripted_node import INFO, NODE_ID, ScriptedNode, fail, say
from tests.simnet.conftest import PATIENCE_S

KEY = PrivateKey(b"\x02" * 32)
KEY_ID = KEY.public_key.format().hex()


def bolt11(**changes: object) -> str:
    return signed(KEY, **changes)


def held(state: str = "unpaid", **changes: object) -> dict[str, object]:
    return {"payment_hash": HASH, "invoice": bolt11(), "state": state, "htlcs": []} | changes


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


async def test_an_invoice_that_the_node_will_not_make_is_not_available(node: ScriptedNode) -> None:
    node.script("invoice", fail(-1), fail(900), say({"payment_hash": HASH}))
    node.script("listinvoices", say({"invoices": []}))
    for _ in range(3):
        with pytest.raises(Unavailable, match="invoice"):
            await ClnLightning(node.path).invoice("x", AMOUNT, "", 60)
