"""BOLT 12: the specification's offers, valid and not, an invoice that lightningd made, round trips, and what hostile text cannot do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pynostr import bech32

from nostrain.crypto import schnorr
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.units import Digest, Msat, UnixTime
from nostrain.wire.bolt12 import BlindedPath, merkle_root, read_records_untrusted, signature_hash, write_records
from nostrain.wire.bolt12_invoice import (
    AMOUNT,
    CREATED_AT,
    NODE_ID,
    SIGNATURE,
    Bolt12Invoice,
    check_answers_untrusted,
    encode_invoice,
    parse_invoice_untrusted,
)
from nostrain.wire.bolt12_offer import GENESIS, encode_offer, parse_offer_untrusted

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "bolt12.json").read_text())
VALID = [vector["offer"] for vector in VECTORS["offers"] if vector["valid"]]
KEY, OTHER = PrivateKey(b"\x01" * 32), PrivateKey(b"\x02" * 32)
NODE, PAYER = KEY.public_key.format().hex(), OTHER.public_key.format().hex()
OFFER = encode_offer("regtest", "shares", NODE)
PATH = BlindedPath(NODE, PAYER, ((PAYER, "aa" * 40), (NODE, "bb")))
HASH = Digest("11" * 32)
NOW = UnixTime(1_700_000_000)


def invoice(key: PrivateKey = KEY, **changes: Any) -> str:
    fields: dict[str, Any] = {
        "network": "regtest",
        "payer_id": PAYER,
        "metadata": b"\x05" * 16,
        "amount_msat": Msat(13_333),
        "payment_hash": HASH,
        "created_at": NOW,
        "expiry_s": 600,
        "node_id": key.public_key.format().hex(),
        "path": PATH,
        "sign": lambda message: schnorr.sign(key.secret, message),
    }
    offer = parse_offer_untrusted(changes.pop("offer", OFFER))
    return encode_invoice(offer, **(fields | changes))


def resigned(text: str, **changes: bytes | None) -> str:
    """The invoice with records changed or left out (by number, `r170=…`), and a signature that is valid for it."""
    records = dict(read_records_untrusted("lni", text))
    for name, value in changes.items():
        records.pop(int(name[1:]), None)
        if value is not None:
            records[int(name[1:])] = value
    records[SIGNATURE] = schnorr.sign(KEY.secret, signature_hash("invoice", merkle_root(dict(sorted(records.items())))))
    return write_records("lni", dict(sorted(records.items())))


@pytest.mark.parametrize("vector", VECTORS["offers"], ids=lambda vector: vector["what"])
def test_the_specifications_offers(vector: dict[str, Any]) -> None:
    if vector["valid"]:
        assert write_records("lno", parse_offer_untrusted(vector["offer"]).records) == vector["offer"]
    else:
        with pytest.raises(RemoteProtocolError):
            parse_offer_untrusted(vector["offer"])


def test_the_specifications_merkle_root_and_signature() -> None:
    signed = VECTORS["signed"]
    records = read_records_untrusted("lnr", signed["invoice_request"])
    root = merkle_root(records)
    assert root.hex() == signed["merkle"]
    assert signature_hash("invoice_request", root).hex() == signed["signature_hash"]
    assert schnorr.verify(records[88][1:], signature_hash("invoice_request", root), records[SIGNATURE])


@pytest.mark.parametrize("vector", VECTORS["fetched"], ids=["fish", "coffee"])
def test_what_lightningd_fetched_answers_its_offer(vector: dict[str, str]) -> None:
    offer, read = parse_offer_untrusted(vector["offer"]), parse_invoice_untrusted(vector["invoice"])
    assert offer.networks == ("regtest",)
    assert not offer.open, "they ask for an amount"
    check_answers_untrusted(read, offer, read.amount_msat, "regtest")
    assert (read.node_id,) == offer.signers
    assert write_records("lni", read.records) == vector["invoice"]


@pytest.mark.parametrize("network", GENESIS)
def test_an_offer_of_ours_says_what_was_put_in(network: str) -> None:
    read = parse_offer_untrusted(encode_offer(network, "shares of a run", NODE))
    assert (read.networks, read.signers, read.description, read.open) == ((network,), (NODE,), "shares of a run", True)


def test_an_offer_without_an_issuer_is_signed_by_the_end_of_its_paths() -> None:
    (text,) = [vector["offer"] for vector in VECTORS["offers"] if vector["what"].startswith("... and with second")]
    assert len(parse_offer_untrusted(text).signers) >= 1


def test_an_invoice_of_ours_says_what_was_put_in() -> None:
    read = parse_invoice_untrusted(invoice())
    assert isinstance(read, Bolt12Invoice)
    assert (read.payment_hash, read.amount_msat, read.created_at, read.expires_at) == (HASH, 13_333, NOW, NOW + 600)
    assert (read.node_id, read.chain, read.paths) == (NODE, GENESIS["regtest"], (PATH,))
    check_answers_untrusted(read, parse_offer_untrusted(OFFER), Msat(13_333), "regtest")


@pytest.mark.parametrize(
    ("text", "amount", "network", "reason"),
    [
        (invoice(), 13_334, "regtest", "13334 were asked for"),
        (invoice(), 13_333, "bitcoin", "is not for bitcoin"),
        (invoice(OTHER), 13_333, "regtest", "not by the offer's node"),
        (invoice(offer=encode_offer("regtest", "another", NODE)), 13_333, "regtest", "another offer"),
        (invoice(offer=encode_offer("bitcoin", "shares", NODE)), 13_333, "regtest", "another offer"),
        (invoice(network="signet"), 13_333, "regtest", "is not for regtest"),
    ],
)
def test_an_invoice_that_was_not_asked_for(text: str, amount: int, network: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        check_answers_untrusted(parse_invoice_untrusted(text), parse_offer_untrusted(OFFER), Msat(amount), network)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({f"r{AMOUNT}": None}, "no record 170"),
        ({f"r{AMOUNT}": b"\x00\x01"}, "not minimal"),
        ({f"r{AMOUNT}": b""}, "0 msat"),
        ({f"r{AMOUNT}": b"\x7f" * 8}, "amount of"),
        ({f"r{CREATED_AT}": b"\x01" * 6}, "absurd"),
        ({"r160": None}, "no record 160"),
        ({"r162": b""}, "0 sets of fees for 1 paths"),
        ({"r168": b"\x11" * 31}, "31 bytes"),
        ({"r174": b"\x01\x00\x00\x00"}, "unknown features"),
        ({f"r{NODE_ID}": b"\x02" + b"\xff" * 32}, "not on the curve"),
        ({"r178": b""}, "unknown record 178"),
        ({"r250": b""}, "no place"),
    ],
)
def test_signed_nonsense_is_refused(changes: dict[str, bytes | None], reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        parse_invoice_untrusted(resigned(invoice(), **changes))


def test_every_record_is_signed() -> None:
    records = read_records_untrusted("lni", invoice())
    for kind in records:
        altered = dict(records)
        altered[kind] = bytes([altered[kind][0] ^ 1]) + altered[kind][1:]
        with pytest.raises(RemoteProtocolError):
            parse_invoice_untrusted(write_records("lni", altered))


@pytest.mark.parametrize(
    "text",
    [
        OFFER.upper(),
        OFFER.title(),
        OFFER[:20] + "+" + OFFER[20:],
        f" {OFFER}",
        f"{OFFER}\n",
        OFFER.replace("lno1", "lni1"),
        "lno1",
        "",
        "lno1b" * 2_000,
    ],
)
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_offer_untrusted(text)


def test_records_are_written_in_order_only() -> None:
    with pytest.raises(LocalProtocolError, match="out of order"):
        write_records("lno", {22: b"", 2: b""})


@given(text=st.sampled_from([*VALID, invoice()]), at=st.integers(0, 10_000), char=st.sampled_from(bech32.CHARSET + "1+ é"))
def test_mutated_text_ends_in_one_error_or_parses(text: str, at: int, char: str) -> None:
    at %= len(text)
    mutated = text[:at] + char + text[at + 1 :]
    for parse in (parse_offer_untrusted, parse_invoice_untrusted):
        try:
            parse(mutated)
        except RemoteProtocolError:
            continue


@given(data=st.binary(max_size=200), prefix=st.sampled_from(["lno", "lni"]))
def test_any_bytes_end_in_one_error_or_parse(data: bytes, prefix: str) -> None:
    words = bech32.convertbits(data, 8, 5)
    text = f"{prefix}1{''.join(bech32.CHARSET[word] for word in words)}"
    for parse in (parse_offer_untrusted, parse_invoice_untrusted):
        try:
            parse(text)
        except RemoteProtocolError:
            continue
