"""Authorization tokens (BUD-11): every spelling of a good one is read, everything else is refused in one way."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.blobs.auth import KIND, check_token, digests, make_header, parse_header_untrusted
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Draft
from nostrain.units import Digest, UnixTime
from nostrain.wire.event import encode_event

from .blossom_world import DIGEST, HOST, NOW, signer

ALICE = signer("alice")


def test_our_token_reads_the_same_in_every_base64() -> None:
    for extra in range(4):  # the event's length modulo 3 varies with the host's
        header = make_header(ALICE, verb="upload", digest=DIGEST, host="h" * (extra + 1), now=UnixTime(NOW))
        text = header.removeprefix("Nostr ")
        assert not set(text) & set("+/-_=")
        assert base64.b64decode(text, validate=True) == base64.urlsafe_b64decode(text)


def test_our_token_authorizes_what_it_says_and_only_that() -> None:
    event = parse_header_untrusted(make_header(ALICE, verb="upload", digest=DIGEST, host=HOST, now=UnixTime(NOW)))
    assert (event.pubkey, event.kind, digests(event)) == (ALICE.pubkey, KIND, {DIGEST})
    good = {"verb": "upload", "digest": DIGEST, "hosts": {HOST, "127.0.0.1"}, "now": UnixTime(NOW)}
    check_token(event, **good)
    for change in (
        {"verb": "delete"},
        {"digest": Digest("00" * 32)},
        {"hosts": {"other"}},
        {"now": UnixTime(NOW + 601)},
        {"now": UnixTime(NOW - 100)},
    ):
        with pytest.raises(RemoteProtocolError, match=ALICE.pubkey):
            check_token(event, **{**good, **change})


@given(
    content=st.text(alphabet=st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=40),
    urlsafe=st.booleans(),
    padded=st.booleans(),
    scheme=st.sampled_from(["Nostr", "nostr", "NOSTR"]),
)
def test_both_alphabets_padded_or_not(content: str, urlsafe: bool, padded: bool, scheme: str) -> None:
    event = ALICE.sign(Draft(UnixTime(NOW), KIND, (("t", "upload"),), content))
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    text = encode(encode_event(event)).decode()
    assert parse_header_untrusted(f"{scheme} {text if padded else text.rstrip('=')}") == event


@given(st.text() | st.text().map("Nostr {}".format) | st.binary().map(lambda data: "Nostr " + base64.b64encode(data).decode()))
def test_rubbish_is_refused_and_nothing_else_happens(header: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_header_untrusted(header)


@given(data=st.data())
def test_a_changed_token_is_refused_or_the_same(data: st.DataObject) -> None:
    header = make_header(ALICE, verb="upload", digest=DIGEST, host=HOST, now=UnixTime(NOW))
    position = data.draw(st.integers(6, len(header) - 1))
    changed = header[:position] + data.draw(st.characters(min_codepoint=1, max_codepoint=255)) + header[position + 1 :]
    with suppress(RemoteProtocolError):
        assert parse_header_untrusted(changed) == parse_header_untrusted(header)
