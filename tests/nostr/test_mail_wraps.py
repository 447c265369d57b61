"""Gift wraps: the layers of NIP-59, other people's implementation, and hostile wraps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import nostr_sdk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.keys.mailbox import MAX_BACKDATING_S, MAX_WRAPPED_BYTES, GiftWraps
from nostrain.protocol.event import Event
from nostrain.protocol.limits import MAX_EVENT_BYTES
from nostrain.testing.entropy import SeededEntropy
from nostrain.units import Pubkey
from nostrain.wire.event import encode_event, parse_event_untrusted
from tests.nostr.wraps import ALICE, BOB, EVE, LETTER, hostile

from .mail_world import NOW, FixedClock, Person, rumor_of, sealed, wrapped

NIP44: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "nip44.json").read_text())["v2"]["invalid"]


def test_a_letter_comes_out_as_it_went_in() -> None:
    letter = ALICE.letter('{"v":1,"text":"\\"é\\n"}')
    wrap = ALICE.mailbox.wrap(letter, BOB.pubkey)
    assert parse_event_untrusted(encode_event(wrap)) == wrap
    assert BOB.mailbox.unwrap_untrusted(wrap) == letter


def test_nothing_but_the_recipient_shows() -> None:
    wraps = [ALICE.mailbox.wrap(ALICE.letter("x"), BOB.pubkey) for _ in range(20)]
    assert len({wrap.pubkey for wrap in wraps} | {ALICE.pubkey, BOB.pubkey}) == 22
    assert all((wrap.kind, wrap.tags) == (1059, (("p", BOB.pubkey),)) for wrap in wraps)
    ages = [NOW - wrap.created_at for wrap in wraps]
    assert all(0 <= age < MAX_BACKDATING_S for age in ages)
    assert max(ages) - min(ages) > MAX_BACKDATING_S // 4
    assert len({len(wrap.content) for wrap in wraps}) == 1


def test_keys_and_times_come_from_the_given_entropy() -> None:
    one, two = (GiftWraps(ALICE.root, FixedClock(), SeededEntropy(5, "same").draw).wrap(ALICE.letter("x"), BOB.pubkey) for _ in range(2))
    assert (one.pubkey, one.created_at) == (two.pubkey, two.created_at)


def test_a_draw_that_is_no_key_is_drawn_again() -> None:
    draws = [bytes(4), bytes(32), b"\xff" * 32, b"\x01" * 32, bytes(4)]
    wrap = GiftWraps(ALICE.root, FixedClock(), lambda size: draws.pop(0)).wrap(ALICE.letter("x"), BOB.pubkey)
    assert not draws
    assert BOB.mailbox.unwrap_untrusted(wrap).content == "x"


def test_the_largest_event_that_we_speak_fits() -> None:
    content = msgspec.json.encode({"seeds": ["a" * 64] * 230}).decode()
    assert len(content) > MAX_EVENT_BYTES - 1024
    letter = ALICE.letter(content)
    assert BOB.mailbox.unwrap_untrusted(ALICE.mailbox.wrap(letter, BOB.pubkey)) == letter


def test_up_to_the_limit_it_fits_and_no_further() -> None:
    room = MAX_WRAPPED_BYTES - len(rumor_of(ALICE.pubkey, encode_event(ALICE.letter("")).decode(), id="0" * 64))
    largest = ALICE.letter("x" * room)
    assert BOB.mailbox.unwrap_untrusted(ALICE.mailbox.wrap(largest, BOB.pubkey)) == largest
    with pytest.raises(LocalProtocolError, match="a gift wrap holds"):
        ALICE.mailbox.wrap(ALICE.letter("x" * (room + 1)), BOB.pubkey)


def test_what_is_not_ours_or_goes_nowhere_is_not_sealed() -> None:
    with pytest.raises(LocalProtocolError, match="only our own"):
        ALICE.mailbox.wrap(BOB.letter("x"), BOB.pubkey)
    for nobody in (
        "",
        "x",
        "npub1",
        "00" * 32,
        *(case["pub2"] for case in NIP44["get_conversation_key"] if case["note"].startswith("pub2")),
    ):
        with pytest.raises(LocalProtocolError):
            ALICE.mailbox.wrap(ALICE.letter("x"), Pubkey(nobody))


def test_nostr_sdk_opens_our_wraps() -> None:
    letter = ALICE.letter("hello")
    wrap = nostr_sdk.Event.from_json(encode_event(ALICE.mailbox.wrap(letter, BOB.pubkey)).decode())
    gift = nostr_sdk.UnwrappedGift.from_gift_wrap(_keys(BOB), wrap)
    assert gift.sender().to_hex() == ALICE.pubkey
    assert parse_event_untrusted(gift.rumor().content()) == letter


def test_we_open_nostr_sdks_wraps() -> None:
    letter = ALICE.letter("hello")
    rumor = nostr_sdk.UnsignedEvent.from_json(rumor_of(ALICE.pubkey, encode_event(letter).decode()))
    wrap = nostr_sdk.nip59_make_gift_wrap(_keys(ALICE), nostr_sdk.PublicKey.parse(BOB.pubkey), rumor)
    assert BOB.mailbox.unwrap_untrusted(parse_event_untrusted(wrap.as_json())) == letter


def _keys(person: Person) -> nostr_sdk.Keys:
    return nostr_sdk.Keys.parse(person.root.nostr_key().hex())


EVES = encode_event(EVE.letter("x")).decode()


@pytest.mark.parametrize(("wrap", "reason"), [case[1:] for case in hostile()], ids=[case[0] for case in hostile()])
def test_hostile_wraps_are_refused_and_named(wrap: Event, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        BOB.mailbox.unwrap_untrusted(wrap)


def test_a_sealer_is_named() -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        BOB.mailbox.unwrap_untrusted(wrapped(BOB.pubkey, sealed(EVE, BOB.pubkey, rumor_of(EVE.pubkey, LETTER))))
    assert caught.value.whose == EVE.pubkey


@pytest.mark.parametrize("payload", [case["payload"] for case in NIP44["decrypt"]], ids=lambda payload: payload[:6])
def test_invalid_payloads_of_nip44(payload: str) -> None:
    for wrap in (EVE.signs(1059, payload, (("p", BOB.pubkey),)), wrapped(BOB.pubkey, encode_event(EVE.signs(13, payload)).decode())):
        with pytest.raises(RemoteProtocolError, match="was altered"):
            BOB.mailbox.unwrap_untrusted(wrap)


WRAP = ALICE.mailbox.wrap(ALICE.letter("x"), BOB.pubkey)


@given(data=st.data())
@settings(max_examples=60)
def test_altered_payloads_are_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(WRAP.content) - 1))
    char = data.draw(st.sampled_from("ABab01+/=~é\n"))
    cut = data.draw(st.booleans())
    content = WRAP.content[:at] if cut else WRAP.content[:at] + char + WRAP.content[at + 1 :]
    if content != WRAP.content:
        with pytest.raises(RemoteProtocolError, match="was altered"):
            BOB.mailbox.unwrap_untrusted(msgspec.structs.replace(WRAP, content=content))
