"""What the hook reads and writes: anything may come in, only three things may go out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.errors import RemoteProtocolError
from nostrain.holdplugin import hook
from nostrain.holdplugin.bolt11 import unsigned_invoice
from nostrain.holdplugin.invoices import Fail, Failure, Resolve
from nostrain.units import BlockHeight, Msat
from nostrain.wire.bolt11 import parse_unsigned_untrusted
from tests.holdplugin.hold_examples import AMOUNT, HASH, HEIGHT, NOW, PREIMAGE, SECRET, call, offer


def test_a_call_is_read() -> None:
    assert hook.parse_offer_untrusted(call(3)) == offer(3)


@pytest.mark.parametrize("hop", [{"short_channel_id": "2x2x2"}, {"next_node_id": "02" + "44" * 32}])
def test_what_goes_on_to_another_node_is_not_ours(hop: dict[str, Any]) -> None:
    assert hook.parse_offer_untrusted(call(**hop)) is None
    assert hook.parse_offer_untrusted(call() | {"forward_to": "55" * 32}) is None


def test_a_payment_without_a_secret_is_read_and_then_does_not_fit() -> None:
    bare = call()
    del bare["onion"]["payment_secret"], bare["onion"]["total_msat"]
    read = hook.parse_offer_untrusted(bare)
    assert read is not None
    assert (read.payment_secret, read.total_msat) == (None, None)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["onion", "htlc", ""]), st.sampled_from([*call()["onion"], *call()["htlc"]]), JSON)
def test_whatever_lightningd_says_is_read_or_refused(where: str, name: str, value: Any) -> None:
    params: Any = call()
    if where and name in params[where]:
        params[where][name] = value
    elif where:
        params[where] = value
    else:
        params = value
    try:
        hook.parse_offer_untrusted(params)
    except RemoteProtocolError:
        pass


def test_the_three_replies() -> None:
    assert hook.go_on() == {"result": "continue"}
    assert hook.resolve(Resolve(PREIMAGE)) == {"result": "resolve", "payment_key": PREIMAGE}
    details = hook.fail(Fail(Failure.DETAILS), AMOUNT, HEIGHT)
    assert details == {"result": "fail", "failure_message": f"400f{AMOUNT:016x}{HEIGHT:08x}"}
    assert hook.fail(Fail(Failure.MPP_TIMEOUT), AMOUNT, HEIGHT) == {"result": "fail", "failure_message": "0017"}
    assert json.loads(json.dumps(details)) == details


def test_a_block() -> None:
    assert hook.height_of_block_untrusted({"block_added": {"hash": "00", "height": 7}}) == 7
    with pytest.raises(RemoteProtocolError):
        hook.height_of_block_untrusted({"block_added": {}})


@pytest.mark.parametrize("amount", [1, 10, 999, 1_000, 123_456_789, 10**11])
@pytest.mark.parametrize("description", [None, "", "für dich", "x" * 639])
def test_an_unsigned_invoice_says_what_it_was_told(amount: int, description: str | None) -> None:
    text = unsigned_invoice(
        "regtest",
        HASH,
        bytes.fromhex(SECRET),
        Msat(amount),
        NOW,
        description=description,
        description_hash=None,
        expiry_s=600,
        min_final_cltv=80,
    )
    read = parse_unsigned_untrusted(text)
    assert (read.currency, read.payment_hash, read.payment_secret, read.amount_msat) == ("bcrt", HASH, SECRET, amount)
    assert (read.created_at, read.description, read.expiry_s, read.min_final_cltv) == (NOW, description or "", 600, 80)


def test_an_unsigned_invoice_may_hash_its_description_and_refuses_what_cannot_be_said() -> None:
    terms: dict[str, Any] = {"description": None, "description_hash": "66" * 32, "expiry_s": 600, "min_final_cltv": 80}
    bare = ("bitcoin", HASH, bytes.fromhex(SECRET), AMOUNT, NOW)
    assert parse_unsigned_untrusted(unsigned_invoice(*bare, **terms)).description_hash == "66" * 32
    with pytest.raises(ValueError, match="longer than 639"):
        unsigned_invoice(*bare, **(terms | {"description": "x" * 640, "description_hash": None}))
    with pytest.raises(ValueError, match="no invoices are known"):
        unsigned_invoice("liquid", *bare[1:], **terms)
    assert hook.fail(Fail(Failure.DETAILS), AMOUNT, BlockHeight(-1))["failure_message"].endswith("00000000")
