"""NIP-01 events: the canonical form, strict parsing, and agreement with an independent implementation (nostr-sdk)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import nostr_sdk
import pytest
from coincurve import PrivateKey, PublicKeyXOnly
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.event import Draft, Event, Filter
from nostrain.testing.filters import parse_filter
from nostrain.units import EventId, Pubkey, UnixTime
from nostrain.wire.event import (
    MAX_EVENT_BYTES,
    encode_event,
    event_id,
    filter_object,
    matches,
    parse_event_untrusted,
)
from nostrain.wire.nip19 import npub, parse_npub_untrusted

SECRET = bytes(range(1, 33))
KEY = PrivateKey(SECRET)
PUBKEY = Pubkey(PublicKeyXOnly.from_secret(SECRET).format().hex())

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=[chr(c) for c in range(32) if chr(c) not in "\b\t\n\f\r"]))
drafts = st.builds(
    Draft,
    created_at=st.integers(0, 2**53 - 1).map(UnixTime),
    kind=st.integers(0, 65535),
    tags=st.lists(st.lists(text, min_size=1, max_size=4).map(tuple), max_size=6).map(tuple),
    content=text,
)


def sign(draft: Draft) -> Event:
    digest = bytes.fromhex(event_id(PUBKEY, draft))
    fields = {"created_at": draft.created_at, "kind": draft.kind, "tags": draft.tags, "content": draft.content}
    return Event(id=EventId(digest.hex()), pubkey=PUBKEY, sig=KEY.sign_schnorr(digest, bytes(32)).hex(), **fields)


def signed_object(**changes: Any) -> dict[str, Any]:
    """An event object whose id and signature are right for whatever `changes` say, by arithmetic of our own."""
    body = {"pubkey": PUBKEY, "created_at": 1_700_000_000, "kind": 1, "tags": [["t", "nostrain"]], "content": "hi"} | changes
    fields = [0, *(body[name] for name in ("pubkey", "created_at", "kind", "tags", "content"))]
    digest = hashlib.sha256(json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")).digest()
    return {"id": digest.hex(), **body, "sig": KEY.sign_schnorr(digest, bytes(32)).hex()}


@given(drafts)
def test_round_trip(draft: Draft) -> None:
    event = sign(draft)
    assert parse_event_untrusted(encode_event(event)) == event
    assert parse_event_untrusted(encode_event(event).decode()) == event
    assert parse_event_untrusted(json.loads(encode_event(event))) == event


@given(drafts)
@settings(max_examples=30)
def test_nostr_sdk_accepts_what_we_sign(draft: Draft) -> None:
    event = sign(Draft(UnixTime(draft.created_at % 2**40), draft.kind, draft.tags, draft.content))
    assert nostr_sdk.Event.from_json(encode_event(event).decode()).verify()


@given(text, st.integers(0, 65535), st.lists(text, max_size=3))
@settings(max_examples=30)
def test_we_accept_what_nostr_sdk_signs(content: str, kind: int, values: list[str]) -> None:
    builder = nostr_sdk.EventBuilder(nostr_sdk.Kind(kind), content).tags([nostr_sdk.Tag.parse(["z", *values])])
    theirs = builder.finalize(nostr_sdk.Keys.parse(SECRET.hex()))
    ours = parse_event_untrusted(theirs.as_json())
    assert (ours.id, ours.content, ours.tags) == (theirs.id().to_hex(), content, (("z", *values),))


def test_serialization_escapes_as_nip01_lists() -> None:
    content = '\n"\\\r\t\b\f/\x7f é😀\u2028'
    serialized = f'[0,"{PUBKEY}",5,1,[["e","\\n"]],"\\n\\"\\\\\\r\\t\\b\\f/\x7f é😀\u2028"]'
    assert event_id(PUBKEY, Draft(UnixTime(5), 1, (("e", "\n"),), content)) == hashlib.sha256(serialized.encode()).hexdigest()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": 65536}, "kind is not between"),
        ({"kind": -1}, "kind is not between"),
        ({"created_at": -1}, "created_at is out of range"),
        ({"created_at": 2**53}, "created_at is out of range"),
        ({"created_at": 1.0}, "Expected `int`"),
        ({"created_at": True}, "Expected `int`"),
        ({"kind": "1"}, "Expected `int`"),
        ({"content": None}, "Expected `str`"),
        ({"tags": [[1]]}, "Expected `str`"),
        ({"tags": [[]]}, "a tag is empty"),
        ({"tags": [["t"]] * 2001}, "2001 tags"),
        ({"content": "\x01"}, "control character"),
        ({"tags": [["a", "\x1f"]]}, "control character"),
        ({"content": "\ud800"}, "surrogate"),
        ({"content": "é" * (MAX_EVENT_BYTES // 2)}, "more than|bytes"),
        ({"pubkey": "ff" * 32}, "not on the curve"),
        ({"pubkey": PUBKEY.upper()}, "pubkey is not 64"),
        ({"pubkey": PUBKEY[:-1]}, "pubkey is not 64"),
    ],
)
def test_refused_even_if_well_signed(changes: dict[str, Any], reason: str) -> None:
    event = signed_object(**changes)
    with pytest.raises(RemoteProtocolError, match=reason):
        parse_event_untrusted(event)
    with pytest.raises(RemoteProtocolError, match=f"{reason}|surrogate"):
        parse_event_untrusted(json.dumps(event))


@pytest.mark.parametrize("name", ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"])
def test_every_member_is_required(name: str) -> None:
    event = signed_object()
    del event[name]
    with pytest.raises(RemoteProtocolError, match=f"missing required field `{name}`"):
        parse_event_untrusted(event)


def test_refusal_names_author_and_event() -> None:
    event = signed_object() | {"sig": "00" * 64}
    with pytest.raises(RemoteProtocolError, match="the signature is not valid") as caught:
        parse_event_untrusted(event)
    assert caught.value.whose == PUBKEY
    assert caught.value.what == f"event {event['id']}"


@pytest.mark.parametrize(
    "changes",
    [{"id": "0" * 64}, {"content": "altered"}, {"kind": 2}, {"tags": []}, {"created_at": 1}],
)
def test_id_is_recomputed(changes: dict[str, Any]) -> None:
    with pytest.raises(RemoteProtocolError, match="id is not the hash"):
        parse_event_untrusted(signed_object() | changes)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "Expected `object`"),
        (b'{"x":' + b"[" * 60_000, "not JSON"),
        ("\ud800", "surrogate"),
        (b" " * (MAX_EVENT_BYTES + 1), "65537 bytes"),
        (json.dumps(signed_object())[:-1] + ',"kind":1}', "a member is given twice"),
        (json.dumps(signed_object())[:-1] + ',"z":{"a":1,"a":2}}', "a member is given twice"),
        (json.dumps(signed_object()) + "{}", "trailing"),
        (json.dumps(signed_object()).replace("1700000000", "1" * 5000), "not JSON|out of range|int"),
    ],
)
def test_refused_text(data: bytes | str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        parse_event_untrusted(data)


def test_unknown_members_are_dropped() -> None:
    assert encode_event(parse_event_untrusted(signed_object() | {"ots": "x"})) == encode_event(parse_event_untrusted(signed_object()))


@given(st.binary(max_size=200) | st.text(max_size=200) | st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=3)))
def test_garbage_raises_only_remote_protocol_error(data: Any) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_event_untrusted(data)
    assert str(caught.value).isascii()
    assert "\n" not in str(caught.value)


@given(st.data())
@settings(max_examples=300)
def test_mutated_bytes_give_the_same_event_or_an_error(data: st.DataObject) -> None:
    original = sign(Draft(UnixTime(1_700_000_000), 8650, (("d", "run"), ("p", PUBKEY)), '{"v":1,"é":"\\n"}'))
    raw = bytearray(encode_event(original))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        parsed = parse_event_untrusted(bytes(raw))
    except RemoteProtocolError:
        return
    assert parsed == original  # whitespace, or an escape of the same character


def test_a_draft_of_ours_out_of_bounds_is_our_error() -> None:
    with pytest.raises(LocalProtocolError, match="kind is not between"):
        event_id(PUBKEY, Draft(UnixTime(0), 70_000, (), ""))
    with pytest.raises(LocalProtocolError, match="author"):
        event_id(Pubkey("AB"), Draft(UnixTime(0), 1, (), ""))


FILTER = Filter(authors=(PUBKEY,), kinds=(8650, 8651), tags=(("d", ("a", "b")),), since=UnixTime(10), until=UnixTime(20), limit=5)


def test_filter_round_trip() -> None:
    encoded = filter_object(FILTER)
    assert encoded == {"authors": (PUBKEY,), "kinds": (8650, 8651), "#d": ("a", "b"), "since": 10, "until": 20, "limit": 5}
    assert parse_filter(json.loads(json.dumps(encoded))) == FILTER
    assert filter_object(Filter()) == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"kind": 8651, "created_at": UnixTime(20), "tags": (("d", "b", "c"),)}, True),
        ({"kind": 8652}, False),
        ({"created_at": UnixTime(9)}, False),
        ({"created_at": UnixTime(21)}, False),
        ({"tags": (("d", "c", "a"),)}, False),
        ({"tags": (("d",), ("D", "a"))}, False),
        ({"tags": ()}, False),
    ],
)
def test_matches(change: dict[str, Any], expected: bool) -> None:
    body = {"created_at": UnixTime(10), "kind": 8650, "tags": (("x", "y"), ("d", "a")), "content": ""}
    event = sign(Draft(**(body | change)))
    assert matches(FILTER, event) is expected
    assert matches(Filter(ids=(event.id,)), event)
    assert not matches(Filter(ids=(EventId("0" * 64),)), event)
    assert not matches(Filter(authors=(Pubkey("0" * 64),)), event)


NIP19_HEX = Pubkey("7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e")
NIP19_NPUB = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"


def test_npub_vector_of_the_nip() -> None:
    assert npub(NIP19_HEX) == NIP19_NPUB
    assert parse_npub_untrusted(NIP19_NPUB) == NIP19_HEX
    assert nostr_sdk.PublicKey.parse(NIP19_HEX).to_bech32() == NIP19_NPUB


@pytest.mark.parametrize(
    ("spelling", "reason"),
    [
        ("", "characters"),
        (NIP19_NPUB[:-1] + "q", "checksum"),
        (NIP19_NPUB[:-1] + "é", "not bech32"),
        (NIP19_NPUB.replace("npub1", "nsec1"), "checksum"),
        ("nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5", "nsec1"),
        (npub(Pubkey("ff" * 32)), "not on the curve"),
    ],
)
def test_npub_refused(spelling: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        parse_npub_untrusted(spelling)


def test_npub_of_a_bad_key_is_our_error() -> None:
    with pytest.raises(LocalProtocolError):
        npub(Pubkey("zz"))
