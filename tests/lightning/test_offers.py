"""Offers on a node that is wrong, late or lying: what an invoice must be, and when another one may take its place."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest
import trio
from coincurve import PrivateKey

from nostrain.crypto import schnorr
from nostrain.errors import LocalProtocolError, OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.lightning import offers
from nostrain.lightning.client import ClnLightning
from nostrain.lightning.payments import RETRY_FOR_S, SETTLING_S
from nostrain.ports.lightning import PayResult
from nostrain.units import Digest, Msat, UnixTime
from nostrain.wire.bolt12 import BlindedPath, read_records_untrusted, write_records
from nostrain.wire.bolt12_invoice import encode_invoice
from nostrain.wire.bolt12_offer import AMOUNT, EXPIRY, QUANTITY, encode_offer, parse_offer_untrusted
from tests.lightning.scripted_node import Act, ScriptedNode, fail, hang, say, send

PATIENCE_S = 10
PAYEE, STRANGER = PrivateKey(b"\x01" * 32), PrivateKey(b"\x02" * 32)
PREIMAGE = "42" * 32
HASH = Digest(hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest())
SHARE = Msat(13_333)
OFFER = encode_offer("regtest", "shares", PAYEE.public_key.format().hex())
FAILED, PAID = PayResult(HASH, None), PayResult(HASH, PREIMAGE)


def invoice(offer: str = OFFER, key: PrivateKey = PAYEE, age_s: int = 0, **changes: Any) -> str:
    node = key.public_key.format().hex()
    fields: dict[str, Any] = {
        "network": "regtest",
        "payer_id": node,
        "metadata": b"m",
        "amount_msat": SHARE,
        "payment_hash": HASH,
        "created_at": UnixTime(int(time.time()) - age_s),
        "expiry_s": 600,
        "node_id": node,
        "path": BlindedPath(node, node, ((node, "aa"),)),
        "sign": lambda message: schnorr.sign(key.secret, message),
    }
    return encode_invoice(parse_offer_untrusted(offer), **(fields | changes))


def altered(**records: bytes) -> str:
    """The offer with further records."""
    found = dict(read_records_untrusted("lno", OFFER)) | {int(name[1:]): value for name, value in records.items()}
    return write_records("lno", {kind: found[kind] for kind in sorted(found)})


def part(status: str, *, age_s: int = 0, preimage: str | None = None) -> dict[str, object]:
    row = {"payment_hash": HASH, "status": status, "created_at": int(time.time()) - age_s, "groupid": 7, "partid": 1}
    return row | ({} if preimage is None else {"payment_preimage": preimage})


def table(*parts: dict[str, object]) -> Act:
    return say({"payments": parts})


DONE = part("complete", preimage=PREIMAGE)


async def pay(node: ScriptedNode, text: str) -> PayResult:
    with trio.fail_after(PATIENCE_S):
        return await ClnLightning(node.path).pay_fetched(text, HASH, SHARE)


async def test_an_offer_asks_for_any_amount(node: ScriptedNode) -> None:
    node.script("listoffers", say({"offers": []}))
    node.script("offer", say({"bolt12": OFFER, "active": True, "offer_id": "ab", "single_use": False, "used": False, "created": False}))
    assert await ClnLightning(node.path).offer("shares") == OFFER
    assert node.params("offer") == {"amount": "any", "description": "shares", "label": "shares"}


async def test_an_offer_that_the_node_has_already_is_not_made_again(node: ScriptedNode) -> None:
    listed = [{"bolt12": "lno1other", "active": True}, {"bolt12": OFFER, "active": True, "label": "shares"}]
    node.script("listoffers", say({"offers": listed}))
    assert await ClnLightning(node.path).offer("shares") == OFFER
    assert "offer" not in node.methods()


@pytest.mark.parametrize(("code", "error"), [(1000, LocalProtocolError), (-1, Unavailable), (-32601, Unavailable)])
async def test_an_offer_that_cannot_be_made(node: ScriptedNode, code: int, error: type[Exception]) -> None:
    node.script("listoffers", say({"offers": []}))
    node.script("offer", fail(code))
    with pytest.raises(error):
        await ClnLightning(node.path).offer("shares")


async def test_an_invoice_is_asked_for_with_its_amount(node: ScriptedNode) -> None:
    node.script("fetchinvoice", say({"invoice": (text := invoice()), "changes": {}}))
    fetched = await ClnLightning(node.path).fetch_invoice(OFFER, SHARE)
    assert (fetched.bolt12, fetched.payment_hash) == (text, HASH)
    assert node.params("fetchinvoice") == {"offer": OFFER, "amount_msat": SHARE, "timeout": offers.FETCH_S}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: invoice(amount_msat=Msat(SHARE + 1)), "were asked for"),
        (lambda: invoice(key=STRANGER), "not by the offer's node"),
        (lambda: invoice(network="signet"), "is not for regtest"),
        (lambda: invoice(encode_offer("regtest", "another", PAYEE.public_key.format().hex())), "another offer"),
        (lambda: invoice(age_s=601), "had expired"),
        (lambda: "lni1qq", "lni"),
    ],
)
async def test_an_invoice_that_was_not_asked_for_is_refused(node: ScriptedNode, answer: Callable[[], str], reason: str) -> None:
    node.script("fetchinvoice", say({"invoice": answer(), "changes": {}}))
    with pytest.raises(RemoteProtocolError, match=reason):
        await ClnLightning(node.path).fetch_invoice(OFFER, SHARE)


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (encode_offer("bitcoin", "shares", PAYEE.public_key.format().hex()), "is not for regtest"),
        (altered(**{f"r{AMOUNT}": b"\x05"}), "of its own"),
        (altered(**{f"r{QUANTITY}": b""}), "of its own"),
        (altered(**{f"r{EXPIRY}": b"\x05"}), "has expired"),
    ],
)
async def test_offers_that_do_not_take_any_amount_now_are_not_asked(node: ScriptedNode, offer: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        await ClnLightning(node.path).fetch_invoice(offer, SHARE)
    assert "fetchinvoice" not in node.methods()


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (fail(1002), RemoteProtocolError),
        (fail(1004), RemoteProtocolError),
        (fail(1003), Unavailable),
        (fail(1005), Unavailable),
        (fail(-32601), Unavailable),
        (send(b"{"), Unavailable),
    ],
)
async def test_no_invoice_now_or_never(node: ScriptedNode, act: Act, error: type[Exception]) -> None:
    node.script("fetchinvoice", act)
    with pytest.raises(error):
        await ClnLightning(node.path).fetch_invoice(OFFER, SHARE)


async def test_the_table_is_read_before_anything_is_sent(node: ScriptedNode) -> None:
    node.script("listsendpays", table(DONE))
    assert await pay(node, invoice()) == PAID
    assert "xpay" not in node.methods()


async def test_xpay_pays_and_the_table_says_so(node: ScriptedNode) -> None:
    node.script("listsendpays", table(), table(DONE))
    node.script("xpay", say({}))
    assert await pay(node, (text := invoice())) == PAID
    assert node.params("xpay")["invstring"] == text


async def test_an_expired_invoice_is_not_sent_and_counts_as_failed_only_when_no_xpay_can_be_left(node: ScriptedNode) -> None:
    node.script("listsendpays", table())
    assert await pay(node, invoice(age_s=600 + RETRY_FOR_S + SETTLING_S + 1)) == FAILED
    assert "xpay" not in node.methods()
    node.script("listsendpays", table(), table(), table(DONE))
    assert await pay(node, invoice(age_s=605)) == PAID, "an xpay from before a crash was still at work"
    assert "xpay" not in node.methods()


async def test_a_part_that_is_pending_after_the_expiry_is_waited_for(node: ScriptedNode) -> None:
    node.script("listsendpays", table(part("pending", age_s=5_000)), table(DONE))
    node.script("waitsendpay", say({}))
    assert await pay(node, invoice(age_s=6_000)) == PAID


async def test_refused_is_failed_and_other_errors_are_unknown(node: ScriptedNode) -> None:
    node.script("listsendpays", table())
    node.script("xpay", fail(205))
    assert await pay(node, invoice()) == FAILED
    for act in (fail(-1), send(b""), send(b'{"id": 1}\n\n')):
        node.script("xpay", act)
        with pytest.raises(OutcomeUnknown):
            await pay(node, invoice())


async def test_a_payment_in_progress_is_joined(node: ScriptedNode) -> None:
    node.script("listsendpays", table(), table(part("pending")), table(DONE))
    node.script("xpay", fail(-3, "Unexpected injectpaymentonion error 200"))
    node.script("waitsendpay", fail(204))
    assert await pay(node, invoice()) == PAID


@pytest.mark.parametrize(
    "text", [invoice(amount_msat=Msat(1)), invoice(network="bitcoin"), invoice(payment_hash=Digest("77" * 32)), "lni1qq"]
)
async def test_another_invoice_is_never_paid(node: ScriptedNode, text: str) -> None:
    assert await pay(node, text) == FAILED
    assert "xpay" not in node.methods()


async def test_cancelled_while_xpay_works_nothing_is_claimed(node: ScriptedNode) -> None:
    node.script("listsendpays", table())
    node.script("xpay", hang)
    with trio.move_on_after(0.1) as scope:
        await ClnLightning(node.path).pay_fetched(invoice(), HASH, SHARE)
    assert scope.cancelled_caught
