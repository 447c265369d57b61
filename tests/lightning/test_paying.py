"""Paying once, when the node is slow, forgetful, refusing or lying: what was asked of it, and what we believe in the end."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
import pytest
import trio
from coincurve import PrivateKey

from nostrain.errors import OutcomeUnknown
from nostrain.lightning.client import ClnLightning
from nostrain.lightning.payments import LOOK_AGAIN_S, RETRY_FOR_S, SETTLING_S, Standing, judge
from nostrain.lightning.replies import SendPay
from nostrain.ports.lightning import PayResult
from nostrain.units import Digest, Msat, UnixTime
from tests.lightning.holds import AMOUNT, HASH, PREIMAGE, signed
from tests.lightning.scripted_node import INFO, Act, ScriptedNode, fail, hang, say, send

PATIENCE_S = 10
PAYEE = PrivateKey(b"\x01" * 32)
PAYEE_ID = PAYEE.public_key.format().hex()
CHANNEL = {"peer_id": PAYEE_ID, "peer_connected": True, "state": "CHANNELD_NORMAL", "short_channel_id": "1x2x3", "spendable_msat": 10**9}
FAILED = PayResult(HASH, None)
PAID = PayResult(HASH, PREIMAGE)


def invoice(**changes: object) -> str:
    return signed(PAYEE, **changes)


def part(status: str, *, groupid: int = 1, partid: int = 0, age_s: float = 0, preimage: str | None = None) -> dict[str, object]:
    # Rows are made when the module is read, perhaps minutes before they are judged: what is to be fresh then must not age meanwhile.
    created_at = int(time.time() - age_s) if age_s else 1 << 40
    row = {"payment_hash": HASH, "status": status, "created_at": created_at, "groupid": groupid, "partid": partid}
    return row | ({} if preimage is None else {"payment_preimage": preimage})


def table(*parts: dict[str, object]) -> Act:
    return say({"payments": parts})


DONE = part("complete", preimage=PREIMAGE)
XPAY_FAILED = part("failed", groupid=7, partid=1)


def with_channels(node: ScriptedNode, *channels: dict[str, object]) -> None:
    node.script("listpeerchannels", say({"channels": channels}))


async def pay(node: ScriptedNode, bolt11: str | None = None) -> PayResult:
    with trio.fail_after(PATIENCE_S):
        return await ClnLightning(node.path).pay(invoice() if bolt11 is None else bolt11, HASH, AMOUNT)


@pytest.mark.parametrize(
    ("parts", "over", "standing"),
    [
        ([], False, Standing.ABSENT),
        ([part("pending")], False, Standing.PENDING),
        ([part("failed"), part("pending", groupid=2)], True, Standing.PENDING),
        ([part("failed"), part("complete", groupid=2)], False, Standing.COMPLETE),
        ([part("pending"), part("complete", partid=1)], False, Standing.COMPLETE),
        ([part("odd")], True, Standing.PENDING),
        ([part("failed")], False, Standing.FAILED),
        ([XPAY_FAILED], False, Standing.FAILED_SO_FAR),
        ([XPAY_FAILED], True, Standing.FAILED),
        ([part("failed"), XPAY_FAILED], False, Standing.FAILED_SO_FAR),
        ([part("failed", groupid=7, partid=1, age_s=RETRY_FOR_S + SETTLING_S + 2)], False, Standing.FAILED),
    ],
)
def test_what_the_parts_say_together(parts: Sequence[dict[str, object]], over: bool, standing: Standing) -> None:
    assert judge(msgspec.convert(parts, list[SendPay]), time.time(), over=over) is standing


async def test_a_direct_channel_is_paid_over_by_one_part_that_can_only_be_sent_once(node: ScriptedNode) -> None:
    with_channels(node, CHANNEL | {"short_channel_id": "9x9x9", "spendable_msat": 5}, CHANNEL, CHANNEL | {"state": "ONCHAIN"})
    node.script("listsendpays", table(), table(part("pending")), table(DONE))
    node.script("sendpay", say({}))
    node.script("waitsendpay", say({}))
    bolt11 = invoice(metadata="01fafaf0")
    assert await pay(node, bolt11) == PAID
    assert node.methods() == [
        "getinfo",
        "listsendpays",
        "listpeerchannels",
        "sendpay",
        "listsendpays",
        "getlog",
        "waitsendpay",
        "listsendpays",
    ]
    hop = {"id": PAYEE_ID, "channel": "1x2x3", "direction": 0, "amount_msat": AMOUNT, "delay": 146, "style": "tlv"}
    assert node.params("sendpay") == {
        "route": [hop],
        "payment_hash": HASH,
        "payment_secret": "33" * 32,
        "amount_msat": AMOUNT,
        "bolt11": bolt11,
        "label": "nostrain",
        "groupid": 1,
        "partid": 0,
        "payment_metadata": "01fafaf0",
    }
    assert node.params("waitsendpay") == {"payment_hash": HASH, "groupid": 1, "partid": 0, "timeout": LOOK_AGAIN_S}


async def test_without_a_direct_channel_xpay_finds_the_way(node: ScriptedNode) -> None:
    with_channels(node, CHANNEL | {"state": "AWAITING_UNILATERAL"}, CHANNEL | {"short_channel_id": None})
    node.script("listsendpays", table(), table(DONE))
    node.script("xpay", say({"payment_preimage": "ff" * 32}))
    assert await pay(node) == PAID
    assert node.methods().count("xpay") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"currency": "bc"},
        {"currency": "tb"},
        {"amount_msat": Msat(AMOUNT + 1)},
        {"amount_msat": None},
        {"payment_hash": Digest("00" * 32)},
        {"min_final_cltv": 2_001},
        {"features": 1 << 8 | 1 << 14 | 1 << 100},
    ],
)
async def test_what_we_did_not_agree_to_is_not_paid(node: ScriptedNode, changes: dict[str, object]) -> None:
    assert await pay(node, invoice(**changes)) == FAILED
    assert set(node.methods()) <= {"getinfo"}


async def test_an_expired_invoice_is_joined_but_not_begun(node: ScriptedNode) -> None:
    bolt11 = invoice(created_at=UnixTime(int(time.time()) - 7_200))
    node.script("listsendpays", table(), table(part("pending")), table(DONE))
    node.script("waitsendpay", fail(200))
    assert await pay(node, bolt11) == FAILED
    assert await pay(node, bolt11) == PAID
    assert not {"sendpay", "xpay"} & set(node.methods())


@pytest.mark.parametrize("code", [202, 203, 204, 209])
async def test_a_part_that_failed_is_believed_when_the_table_says_so(node: ScriptedNode, code: int) -> None:
    node.script("listsendpays", table(part("pending")), table(part("pending")), table(part("failed")))
    node.script("waitsendpay", fail(code))
    assert await pay(node) == FAILED
    assert node.methods().count("waitsendpay") == 2


@pytest.mark.parametrize("code", [200, 201])
async def test_a_hash_that_is_being_paid_is_joined(node: ScriptedNode, code: int) -> None:
    with_channels(node, CHANNEL)
    node.script("listsendpays", table(), table(part("pending", groupid=4)), table(part("complete", groupid=4, preimage=PREIMAGE)))
    node.script("sendpay", fail(code))
    node.script("waitsendpay", say({}))
    assert await pay(node) == PAID
    assert node.params("waitsendpay")["groupid"] == 4


async def test_what_sendpay_refuses_is_not_paid(node: ScriptedNode) -> None:
    with_channels(node, CHANNEL)
    node.script("listsendpays", table())
    for code in (-32602, 203):
        node.script("sendpay", fail(code))
        assert await pay(node) == FAILED


@pytest.mark.parametrize("code", [203, 205, 206, 207, 209, -32602])
async def test_what_xpay_refuses_is_not_paid(node: ScriptedNode, code: int) -> None:
    with_channels(node)
    node.script("listsendpays", table(), table(XPAY_FAILED))
    node.script("xpay", fail(code))
    assert await pay(node) == FAILED


async def test_xpay_may_give_up_while_a_part_is_still_out(node: ScriptedNode) -> None:
    with_channels(node)
    out = part("pending", groupid=7, partid=2)
    node.script("listsendpays", table(), table(XPAY_FAILED, out), table(XPAY_FAILED, out | DONE | {"groupid": 7, "partid": 2}))
    node.script("xpay", fail(209))
    node.script("waitsendpay", say({}))
    assert await pay(node) == PAID
    assert node.params("waitsendpay") == {"payment_hash": HASH, "groupid": 7, "partid": 2, "timeout": LOOK_AGAIN_S}


async def test_an_xpay_begun_by_an_earlier_life_may_still_be_trying(node: ScriptedNode) -> None:
    grown = table(XPAY_FAILED, DONE | {"groupid": 7, "partid": 2})
    node.script("listsendpays", table(XPAY_FAILED), table(XPAY_FAILED), grown)
    node.script("wait", say({"subsystem": "sendpays", "created": 5}), say({"subsystem": "sendpays", "created": 6, "sendpays": {}}))
    assert await pay(node) == PAID
    assert node.methods() == ["getinfo", "listsendpays", "wait", "listsendpays", "wait", "listsendpays"]
    assert node.params("wait") == {"subsystem": "sendpays", "indexname": "created", "nextvalue": 6}


async def test_a_part_that_came_while_we_asked_is_not_waited_for(node: ScriptedNode) -> None:
    node.script("listsendpays", table(XPAY_FAILED), table(XPAY_FAILED, DONE | {"groupid": 7, "partid": 2}))
    node.script("wait", say({"subsystem": "sendpays", "created": 6}), hang)
    assert await pay(node) == PAID


HTLC = {"direction": "out", "amount_msat": AMOUNT, "payment_hash": HASH}
LONG_AGO = 1_000_000


@pytest.mark.parametrize(
    ("started", "htlcs", "then", "result"),
    [
        (LONG_AGO + 2.5, [], "pending", FAILED),
        (LONG_AGO + 2.5, [HTLC | {"direction": "in"}, HTLC | {"payment_hash": "00" * 32}], "pending", FAILED),
        (LONG_AGO + 2.5, [HTLC], "pending", PAID),
        (LONG_AGO + 0.5, [], "pending", FAILED),
        (LONG_AGO, [], "pending", PAID),
        (LONG_AGO + 2.5, [], "complete", PAID),
    ],
)
async def test_what_was_pending_before_a_restart_and_is_no_htlc_was_never_sent(
    node: ScriptedNode, started: float, htlcs: list[object], then: str, result: PayResult
) -> None:
    old = part("pending") | {"created_at": LONG_AGO}
    with_channels(node, CHANNEL | {"htlcs": htlcs})
    again = table(old) if then == "pending" and result == FAILED else table(DONE)
    node.script("listsendpays", table(old), again)
    node.script("getlog", say({"created_at": f"{started:.9f}"}))
    node.script("waitsendpay", say({}))
    assert await pay(node) == result


async def test_before_xpay_there_was_pay(node: ScriptedNode) -> None:
    with_channels(node)
    node.script("listsendpays", table(), table(DONE))
    node.script("pay", say({"payment_preimage": PREIMAGE}))
    assert await pay(node) == PAID
    assert node.params("pay") == {"bolt11": node.params("xpay")["invstring"], "retry_for": RETRY_FOR_S}


@pytest.mark.parametrize(
    "script",
    [
        {"getinfo": send()},
        {"getinfo": say(INFO | {"network": "liquid"})},
        {"listsendpays": send()},
        {"listsendpays": fail(-1)},
        {"listpeerchannels": fail(-5)},
        {"listpeerchannels": say({"channels": [CHANNEL | {"peer_connected": False}]})},
        {"sendpay": send()},
        {"sendpay": fail(204)},
        {"sendpay": fail(-5)},
        {"sendpay": fail(-32601)},
        {"listpeerchannels": say({"channels": []}), "xpay": send()},
        {"listpeerchannels": say({"channels": []}), "xpay": fail(-4)},
        {"listsendpays": table(part("pending")), "waitsendpay": send()},
        {"listsendpays": table(part("pending")), "getlog": send()},
        {"listsendpays": table(part("pending")), "getlog": say({"created_at": "yesterday"})},
        {"listsendpays": table(part("complete"))},
        {"listsendpays": table(part("complete", preimage="00" * 32))},
        {"listsendpays": table(part("complete", preimage="zz"))},
    ],
)
async def test_whatever_else_goes_wrong_is_unknown(node: ScriptedNode, script: dict[str, Act]) -> None:
    with_channels(node, CHANNEL)
    node.script("listsendpays", table())
    node.script("sendpay", say({}))
    for method, act in script.items():
        node.script(method, act)
    with pytest.raises(OutcomeUnknown):
        await pay(node)
    assert node.methods().count("sendpay") + node.methods().count("xpay") <= 1


async def test_a_part_of_the_second_in_which_it_started_is_given_time(node: ScriptedNode) -> None:
    now = int(time.time())
    with_channels(node, CHANNEL)
    node.script("listsendpays", table(part("pending") | {"created_at": now}), table(DONE))
    node.script("getlog", say({"created_at": f"{now + 0.5:.9f}"}))
    node.script("waitsendpay", say({}))
    assert await pay(node) == PAID
    assert "listpeerchannels" not in node.methods()
