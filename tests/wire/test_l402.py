"""L402 headers in every spelling that is about, and hostile ones."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.crypto.macaroon import Identifier, encode, encode_identifier, mint
from nostrain.errors import RemoteProtocolError
from nostrain.wire.l402 import (
    MAX_HEADER,
    encode_text,
    format_authorization,
    format_challenges,
    is_l402,
    parse_authorization_untrusted,
    parse_challenges_untrusted,
)

IDENTIFIER = Identifier(b"\xfb" * 32, b"\xff" * 32)
MACAROON = mint(b"key", encode_identifier(IDENTIFIER), "nostrain", [b"size=1"])
TEXT = encode_text(MACAROON)
INVOICE = "lnbcrt10n1pj" + "q" * 100
PREIMAGE = "ab" * 32
NEITHER = 'Basic realm="a, b", charset="UTF-8"'


def test_challenge_is_given_in_both_spellings() -> None:
    deployed, newer = format_challenges(MACAROON, INVOICE)
    assert deployed == f'L402 macaroon="{TEXT}", invoice="{INVOICE}"'
    assert newer == f'L402 version="0", token="{TEXT}", invoice="{INVOICE}"'


@pytest.mark.parametrize(
    "headers",
    [
        format_challenges(MACAROON, INVOICE),
        format_challenges(MACAROON, INVOICE)[:1],
        format_challenges(MACAROON, INVOICE)[1:],
        (", ".join(format_challenges(MACAROON, INVOICE)),),
        (f"{NEITHER}, {format_challenges(MACAROON, INVOICE)[1]}",),
        (NEITHER, "Nostr", *format_challenges(MACAROON, INVOICE)),
        ("Nostr, " + format_challenges(MACAROON, INVOICE)[0],),
        (f'LSAT invoice="{INVOICE}",macaroon="{TEXT}"',),
        (f'lsat  Macaroon = "{TEXT}" , Invoice="{INVOICE}"',),
        (f'L402 version="1", token="x", invoice="y", L402 macaroon="{TEXT}", invoice={INVOICE}',),
    ],
)
def test_challenges_are_read_in_every_spelling(headers: tuple[str, ...]) -> None:
    challenge = parse_challenges_untrusted(headers)
    assert challenge.macaroon == MACAROON
    assert challenge.identifier == IDENTIFIER
    assert (challenge.text, challenge.invoice) == (TEXT, INVOICE)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ((), "no L402 challenge"),
        (("",), "no L402 challenge"),
        ((NEITHER,), "no L402 challenge"),
        (("L402",), "no L402 challenge"),
        ((f'L402 macaroon="{TEXT}"',), "no L402 challenge"),
        ((f'L402 invoice="{INVOICE}"',), "no L402 challenge"),
        ((f'L402 version="1", token="{TEXT}", invoice="{INVOICE}"',), "no L402 challenge"),
        ((f'L402 macaroon="{TEXT}", macaroon="{TEXT}", invoice="{INVOICE}"',), "given twice"),
        ((f'L402 macaroon="%%%", invoice="{INVOICE}"',), "not base64"),
        ((f'L402 macaroon="AgI", invoice="{INVOICE}"',), "ends too early"),
        ((f'L402 macaroon="{base64.b64encode(encode(mint(b"k", b"short"))).decode()}", invoice="{INVOICE}"',), "66 bytes"),
        (('L402 macaroon="unterminated',), "not a list"),
        (("\u2603",), "not a list"),
        (("x" * (MAX_HEADER + 1),), "longer than"),
    ],
)
def test_other_challenges_are_refused(headers: tuple[str, ...], reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        parse_challenges_untrusted(headers)


URL_SAFE = TEXT.replace("+", "-").replace("/", "_")


@pytest.mark.parametrize("scheme", ["L402", "LSAT", "l402", "lsat"])
@pytest.mark.parametrize("text", [TEXT, URL_SAFE, TEXT.rstrip("="), URL_SAFE.rstrip("=")])
@pytest.mark.parametrize("preimage", [PREIMAGE, PREIMAGE.upper()])
def test_authorization_is_read_under_both_names_and_alphabets(scheme: str, text: str, preimage: str) -> None:
    header = f"{scheme} {text}:{preimage}"
    assert is_l402(header)
    credentials = parse_authorization_untrusted(header)
    assert credentials.macaroon == MACAROON
    assert credentials.preimage == bytes.fromhex(PREIMAGE)
    assert credentials.identifier == IDENTIFIER


def test_authorization_round_trip() -> None:
    assert parse_authorization_untrusted(format_authorization(TEXT, PREIMAGE)).macaroon == MACAROON
    assert TEXT != URL_SAFE  # the alphabets differ on this macaroon, so the tests above say something


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "not of the scheme"),
        ("Nostr abc", "not of the scheme"),
        (f"L402{TEXT}:{PREIMAGE}", "not of the scheme"),
        ("L402", "not of the form"),
        (f"L402 {TEXT}", "not of the form"),
        (f"L402 {TEXT}:", "not of the form"),
        (f"L402 {TEXT}:{PREIMAGE}00", "not of the form"),
        (f"L402 {TEXT}:{PREIMAGE[:-1]}", "not of the form"),
        (f"L402 {TEXT}:{PREIMAGE[:-1]}g", "not of the form"),
        (f"L402 {TEXT}:{PREIMAGE}\n", "not of the form"),
        (f"L402 :{PREIMAGE}", "ends too early"),
        (f"L402 {TEXT},{TEXT}:{PREIMAGE}", "not base64"),
        (f"L402 {TEXT} {TEXT}:{PREIMAGE}", "not base64"),
        (f"L402 é{TEXT}:{PREIMAGE}", "not base64"),
        (f"L402 {'A' * MAX_HEADER}:{PREIMAGE}", "longer than"),
    ],
)
def test_other_authorizations_are_refused(header: str, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        parse_authorization_untrusted(header)


@given(text=st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    for header in (text, f"L402 {text}", f"L402 {text}:{PREIMAGE}", f'L402 macaroon="{text}", invoice="x"'):
        with pytest.raises(RemoteProtocolError):
            parse_authorization_untrusted(header)
        with pytest.raises(RemoteProtocolError):
            parse_challenges_untrusted([header])


def test_a_long_list_of_nothing_takes_no_time() -> None:
    for filler in (" ", ",", "a ", 'a="b",', "a,", "\t"):
        with pytest.raises(RemoteProtocolError):
            parse_challenges_untrusted([filler * (MAX_HEADER // len(filler)) + '"'])
