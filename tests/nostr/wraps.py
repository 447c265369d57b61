"""Correspondents, and gift wraps that only somebody hostile makes."""

from __future__ import annotations

import json

import msgspec

from nostrain.protocol.event import Event
from nostrain.wire.event import encode_event

from .mail_world import Person, rumor_of, sealed, wrapped

ALICE, BOB, EVE = Person("alice"), Person("bob"), Person("eve")

LETTER = encode_event(ALICE.letter("x")).decode()


def hostile() -> list[tuple[str, Event, str]]:
    """(what is wrong, the wrap, what the refusal says)."""
    to = BOB.pubkey
    good = sealed(ALICE, to, rumor_of(ALICE.pubkey, LETTER))
    forged = msgspec.json.encode({**json.loads(LETTER), "content": "altered"}).decode()
    return [
        ("another kind", wrapped(to, good, kind=1060), "not one"),
        ("for somebody else", wrapped(to, good, addressee=EVE.pubkey), "not for us"),
        ("encrypted to somebody else", wrapped(EVE.pubkey, good, addressee=to), "not for us or was altered"),
        ("no payload", EVE.signs(1059, "", (("p", to),)), "not for us or was altered"),
        ("no seal", wrapped(to, "hello"), "seal: not JSON"),
        ("unsigned seal", wrapped(to, rumor_of(ALICE.pubkey, "x")), "seal: "),
        ("altered seal", wrapped(to, good.replace('"kind":13', '"kind":14')), "seal: id is not the hash"),
        ("seal of another kind", wrapped(to, sealed(ALICE, to, rumor_of(ALICE.pubkey, LETTER), kind=14)), "of kind 14"),
        ("seal with tags", wrapped(to, sealed(ALICE, to, rumor_of(ALICE.pubkey, LETTER), tags=(("p", to),))), "with 1 tags"),
        (
            "seal for somebody else",
            wrapped(to, sealed(ALICE, EVE.pubkey, rumor_of(ALICE.pubkey, LETTER))),
            "seal.*not for us or was altered",
        ),
        ("no rumor", wrapped(to, sealed(ALICE, to, "hello")), "rumor.*not an event"),
        ("rumor of the wrong type", wrapped(to, sealed(ALICE, to, rumor_of(ALICE.pubkey, LETTER, kind="13"))), "rumor.*not an event"),
        ("deep rumor", wrapped(to, sealed(ALICE, to, "[" * 20_000)), "rumor.*not an event"),
        ("rumor by somebody else", wrapped(to, sealed(EVE, to, rumor_of(ALICE.pubkey, LETTER))), "not by the author of its seal"),
        ("letter by somebody else", wrapped(to, sealed(EVE, to, rumor_of(EVE.pubkey, LETTER))), "signed by someone else"),
        ("private message of NIP-17", wrapped(to, sealed(ALICE, to, rumor_of(ALICE.pubkey, "hi", kind=14))), "letter.*not JSON"),
        ("bare rumor as letter", wrapped(to, sealed(ALICE, to, rumor_of(ALICE.pubkey, rumor_of(ALICE.pubkey, "x")))), "letter"),
        ("forged letter", wrapped(to, sealed(ALICE, to, rumor_of(ALICE.pubkey, forged))), "letter.*id is not the hash"),
    ]
