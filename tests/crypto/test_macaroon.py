"""Macaroons against the bytes of pymacaroons, the chain, caveats that only narrow, and hostile bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.crypto.caveats import Grant, Toll, narrowed_to, read_grant_untrusted, read_toll_untrusted
from nostrain.crypto.macaroon import (
    MAX_BYTES,
    MAX_CAVEATS,
    Identifier,
    Macaroon,
    add_caveat,
    decode_untrusted,
    encode,
    encode_identifier,
    is_minted_with,
    mint,
    parse_identifier_untrusted,
    payment_hash_of,
)
from nostrain.errors import LocalProtocolError, RemoteProtocolError

VECTORS = Path(__file__).parents[1] / "vectors"
CASES: list[dict[str, Any]] = json.loads((VECTORS / "macaroons.json").read_text())["cases"]
L402: dict[str, Any] = json.loads((VECTORS / "dlc_l402.json").read_text())["l402_macaroon"]
KEY = bytes(range(32))
GRANT = Grant("a" * 64, "b" * 64, "c" * 64, 1 << 20, 1_800_000_000)
TOKEN = mint(KEY, encode_identifier(Identifier(b"\x01" * 32, b"\x02" * 32)), "nostrain", GRANT.caveats())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['location']}-{len(case['caveats'])}")
def test_bytes_are_those_of_pymacaroons(case: dict[str, Any]) -> None:
    caveats = [caveat.encode() for caveat in case["caveats"]]
    # pymacaroons writes an absent location as an empty one
    macaroon = mint(bytes.fromhex(case["root_key"]), bytes.fromhex(case["identifier"]), case["location"] or "", caveats)
    assert encode(macaroon).hex() == case["v2_binary"]
    assert macaroon.signature.hex() == case["signature"]
    assert decode_untrusted(bytes.fromhex(case["v2_binary"])) == macaroon
    assert is_minted_with(macaroon, bytes.fromhex(case["root_key"]))


def test_the_l402_vector() -> None:
    macaroon = mint(bytes.fromhex(L402["root_key"]), bytes.fromhex(L402["identifier"]), "lsat", [L402["caveats"][0].encode()])
    assert encode(macaroon).hex() == L402["v2_binary"]
    assert macaroon.signature.hex() not in (L402["signature_by_L402_macaroon-spec.md_formula_WRONG"],)
    parts = parse_identifier_untrusted(macaroon.identifier)
    assert parts.payment_hash == payment_hash_of(bytes.fromhex(L402["preimage"]))
    assert encode_identifier(parts).hex() == L402["identifier"]


def test_a_location_may_be_left_out() -> None:
    bare = mint(KEY, b"id")
    assert decode_untrusted(encode(bare)) == bare
    assert is_minted_with(bare, KEY)


def test_chain_binds_key_identifier_and_every_caveat_in_order() -> None:
    assert is_minted_with(TOKEN, KEY)
    assert not is_minted_with(TOKEN, bytes(32))
    assert not is_minted_with(replace(TOKEN, identifier=TOKEN.identifier[:-1] + b"\0"), KEY)
    assert not is_minted_with(replace(TOKEN, caveats=TOKEN.caveats[:-1]), KEY)
    assert not is_minted_with(replace(TOKEN, caveats=TOKEN.caveats[::-1]), KEY)
    assert not is_minted_with(replace(TOKEN, caveats=(*TOKEN.caveats, b"size=1")), KEY)


def test_holder_narrows_without_the_key() -> None:
    narrowed = add_caveat(add_caveat(TOKEN, b"size=1000"), b"expires=5")
    assert is_minted_with(narrowed, KEY)
    assert read_grant_untrusted(narrowed.caveats) == replace(GRANT, size=1000, expires=5)


def test_repeated_caveats_that_agree_are_no_matter() -> None:
    assert read_grant_untrusted((*GRANT.caveats(), *GRANT.caveats())) == GRANT


@pytest.mark.parametrize(
    ("caveat", "reason"),
    [
        (b"size=1048577", "'size' widens"),
        (b"expires=1800000001", "'expires' widens"),
        (b"worker=" + b"d" * 64, "'worker' is given twice and differs"),
        (b"round=" + b"d" * 64, "'round' is given twice and differs"),
        (b"run=" + b"d" * 64, "'run' is given twice and differs"),
        (b"run=" + b"A" * 64, "'run' is not 64"),
        (b"services=blob:0", "not known here"),
        (b"Size=1", "not known here"),
        (b"size =1", "not known here"),
        (b"size", "not of the form"),
        (b"size=", "not a plain decimal"),
        (b"size=-1", "not a plain decimal"),
        (b"size=01", "not a plain decimal"),
        (b"size=1e3", "not a plain decimal"),
        (b"size= 1", "not a plain decimal"),
        (b"size=1=1", "not a plain decimal"),
        (b"size=9999999999999999", "not a plain decimal"),
        ("size=١".encode(), "not ASCII"),
        (b"", "not of the form"),
    ],
)
def test_caveats_that_widen_or_say_nothing_to_us_are_refused(caveat: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        read_grant_untrusted((*GRANT.caveats(), caveat))


@pytest.mark.parametrize("index", range(5))
def test_a_missing_caveat_is_refused(index: int) -> None:
    caveats = GRANT.caveats()
    with pytest.raises(RemoteProtocolError, match="no caveat"):
        read_grant_untrusted((*caveats[:index], *caveats[index + 1 :]))


@given(sizes=st.lists(st.integers(0, 1 << 40), min_size=1, max_size=6))
def test_grant_is_the_last_bound_if_and_only_if_none_widened(sizes: list[int]) -> None:
    base = replace(GRANT, size=1 << 41).caveats()
    caveats = (*base, *(f"size={size}".encode() for size in sizes))
    if sizes == sorted(sizes, reverse=True):
        assert read_grant_untrusted(caveats).size == sizes[-1]
    else:
        with pytest.raises(RemoteProtocolError):
            read_grant_untrusted(caveats)


def test_a_ticket_is_narrowed_to_one_blob_and_one_method() -> None:
    narrowed = TOKEN
    for caveat in narrowed_to("d" * 64, "PUT"):
        narrowed = add_caveat(narrowed, caveat)
    assert is_minted_with(narrowed, KEY)
    assert read_grant_untrusted(narrowed.caveats) == replace(GRANT, sha256="d" * 64, method="PUT")
    for caveat in narrowed_to("e" * 64, "PUT"):
        narrowed = add_caveat(narrowed, caveat)
    with pytest.raises(RemoteProtocolError, match="'sha256' is given twice and differs"):
        read_grant_untrusted(narrowed.caveats)


TOLL = Toll("GET", "/" + "d" * 64, "d" * 64, 1000, 5)


def test_tolls_and_tickets_are_not_taken_for_each_other() -> None:
    assert read_toll_untrusted(TOLL.caveats()) == TOLL
    assert read_toll_untrusted(replace(TOLL, sha256=None).caveats()) == replace(TOLL, sha256=None)
    with pytest.raises(RemoteProtocolError, match="not known here"):
        read_grant_untrusted(TOLL.caveats())
    with pytest.raises(RemoteProtocolError, match="not known here"):
        read_toll_untrusted(GRANT.caveats())
    with pytest.raises(RemoteProtocolError, match="no caveat 'expires'"):
        read_toll_untrusted(TOLL.caveats()[:-1])


@pytest.mark.parametrize(
    "caveat", [b"path=/other", b"method=PUT", b"path=", b"path=" + b"a" * 129, b"path=\x07", b"size=1001", b"expires=6"]
)
def test_tolls_only_narrow(caveat: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_toll_untrusted((*TOLL.caveats(), caveat))


@pytest.mark.parametrize("identifier", [b"", bytes(65), bytes(67), b"\x00\x01" + bytes(64)])
def test_other_identifiers_are_refused(identifier: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="66 bytes"):
        parse_identifier_untrusted(identifier)


def test_we_make_no_identifier_of_other_lengths() -> None:
    with pytest.raises(LocalProtocolError):
        encode_identifier(Identifier(bytes(31), bytes(32)))


def test_too_many_and_too_large_are_refused_on_both_sides() -> None:
    full = mint(KEY, b"id", None, [b"x"] * MAX_CAVEATS)
    with pytest.raises(LocalProtocolError):
        add_caveat(full, b"x")
    with pytest.raises(LocalProtocolError):
        mint(KEY, b"id", None, [b"x" * MAX_BYTES])
    with pytest.raises(RemoteProtocolError, match="caveats"):
        decode_untrusted(encode(replace(full, caveats=(*full.caveats, b"x"))))
    with pytest.raises(RemoteProtocolError, match="at most"):
        decode_untrusted(bytes(MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "ends too early"),
        (b"\x01\x02\x00\x00\x00", "not of version 2"),
        (b"\x02\x02\x81\x00i\x00\x00\x06\x20" + bytes(32), "shortest form"),
        (b"\x02\x02\xff\xff\xff\xff\x0fi", "too large"),
        (b"\x02\x01\x01\xff\x02\x01i\x00\x00\x06\x20" + bytes(32), "not UTF-8"),
        (b"\x02\x02\x01i\x00\x01\x01l\x02\x01c\x04\x01v\x00\x00\x06\x20" + bytes(32), "third-party"),
        (b"\x02\x02\x01i\x00\x02\x01c\x04\x01v\x00\x00\x06\x20" + bytes(32), "third-party"),
        (b"\x02\x02\x01i\x00\x00\x06\x1f" + bytes(31), "not 32 bytes"),
        (b"\x02\x02\x01i\x00\x00\x06\x20" + bytes(33), "not 32 bytes"),
    ],
)
def test_malformed_bytes_are_named(data: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_untrusted(data)


@given(data=st.data())
def test_mutated_bytes_are_refused_or_do_not_verify(data: st.DataObject) -> None:
    good = bytearray(encode(TOKEN))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    try:
        macaroon = decode_untrusted(bytes(good))
    except RemoteProtocolError:
        return
    assert encode(macaroon) == bytes(good)
    assert not is_minted_with(macaroon, KEY) or (macaroon.location != TOKEN.location and macaroon.caveats == TOKEN.caveats)


@given(junk=st.binary(max_size=200), cut=st.integers(0, 400))
def test_junk_and_cut_bytes_raise_nothing_else(junk: bytes, cut: int) -> None:
    for data in (junk, b"\x02" + junk, encode(TOKEN)[:cut]):
        try:
            found = decode_untrusted(data)
        except RemoteProtocolError:
            continue
        assert isinstance(found, Macaroon)
        assert encode(found) == data
