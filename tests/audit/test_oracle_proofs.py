"""Proofs against oracles, and honest ones that strangers try to frame."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from coincurve import PrivateKey

from nostrain.audit.proof import check_proof, encode_proof, find_proofs, parse_proof_untrusted
from nostrain.crypto import schnorr
from nostrain.protocol import messages as m
from nostrain.protocol.event import Event
from nostrain.wire import dlc
from nostrain.wire.messages import attestation_item_untrusted, oracle_item_untrusted
from tests.docs.examples import VALIDATORS, WORKERS
from tests.docs.parties import b64

from .fraud_world import PUBLIC, ROUND, attested, relayed

CHEAT = VALIDATORS[1]
ITEM = ROUND.oracles[CHEAT.name][2]
STRANGER = WORKERS[0]


def kinds(*events: Event, accused: str = CHEAT.oracle) -> list[str]:
    """What the events prove, each proof checked as a stranger would."""
    proofs = find_proofs((*PUBLIC, *events))
    for proof in proofs:
        assert proof.accused == accused
        assert check_proof(parse_proof_untrusted(encode_proof(proof))).startswith(f"{proof.kind}: oracle {accused}")
        assert len(proof.events) <= 2
    return [proof.kind for proof in proofs]


def again(item: m.OracleItem, *, aux: bytes | None = None, **changes: Any) -> m.OracleItem:
    """The announcement with changes, signed by the cheat's oracle key."""
    event = msgspec.structs.replace(dlc.parse_announcement_untrusted(base64.b64decode(item.tlv)).event, **changes)
    key, message = CHEAT.root.oracle_key(), dlc.announcement_message(event)
    signature = schnorr.sign(key, message) if aux is None else PrivateKey(key).sign_schnorr(message, aux)
    return oracle_item_untrusted(item.payee, b64(dlc.encode_announcement(dlc.Announcement(signature.hex(), CHEAT.oracle, event))))


def test_one_nonce_for_two_events() -> None:
    other = again(ITEM, event_id="another event, of any name")
    assert kinds(relayed([other], by=STRANGER)) == ["reused_nonce"]


def test_one_nonce_among_others() -> None:
    fresh = CHEAT.announces("somewhere else", 4, ROUND.deadlines.attest_by, ITEM.payee)
    mixed = again(fresh, nonces=(*fresh.nonces[:3], ITEM.nonces[0]))
    assert kinds(relayed([mixed], by=STRANGER)) == ["reused_nonce"]


def test_one_event_announced_in_two_ways() -> None:
    fresh = CHEAT.announces("unused", 4, ROUND.deadlines.attest_by, ITEM.payee)
    assert kinds(relayed([again(fresh, event_id=ITEM.event_id)], by=STRANGER)) == ["two_announcements"]
    assert kinds(relayed([again(ITEM, maturity=ITEM.maturity + 1)], by=CHEAT)) == ["reused_nonce", "two_announcements"]


def test_events_of_other_names_are_the_oracles_own_business() -> None:
    one, two = (CHEAT.announces(f"price {n}", 4, ROUND.deadlines.attest_by, ITEM.payee) for n in (1, 2))
    price = again(two, event_id="price 1")
    binary = CHEAT.attests(one, (0, 1, 0, 1))
    assert kinds(relayed([one, price], by=STRANGER), attested([binary], by=STRANGER)) == []


def test_the_same_words_signed_twice_are_no_offence() -> None:
    twice = again(ITEM, aux=bytes(32))
    assert twice.tlv != ITEM.tlv
    assert kinds(relayed([twice], by=STRANGER)) == []


def test_two_oracles_with_one_nonce_prove_nothing() -> None:
    """Anyone can copy a public nonce into an announcement of his own."""
    other = VALIDATORS[0]
    event = msgspec.structs.replace(dlc.parse_announcement_untrusted(base64.b64decode(ITEM.tlv)).event, event_id="copied")
    signature = schnorr.sign(other.root.oracle_key(), dlc.announcement_message(event)).hex()
    copied = oracle_item_untrusted(ITEM.payee, b64(dlc.encode_announcement(dlc.Announcement(signature, other.oracle, event))))
    assert kinds(relayed([copied], by=other)) == []


def test_two_outcomes_for_one_nonce() -> None:
    one, two = CHEAT.attests(ITEM, (1, 0, 0, 0)), CHEAT.attests(ITEM, (1, 1, 0, 0))
    assert kinds(attested([one], by=STRANGER), attested([two], by=WORKERS[1])) == ["two_outcomes"]


def test_two_outcomes_in_one_event() -> None:
    both = attested([CHEAT.attests(ITEM, (0, 0, 0, 0)), CHEAT.attests(ITEM, (1, 1, 1, 1))], by=STRANGER)
    assert kinds(both) == ["two_outcomes"]


def test_digits_that_are_no_thermometer() -> None:
    wrong = CHEAT.attests(ROUND.oracles[CHEAT.name][1], (0, 1, 0, 0))
    found = find_proofs((relayed([ROUND.oracles[CHEAT.name][1]], by=STRANGER), attested([wrong], by=STRANGER)))
    assert [proof.kind for proof in found] == ["non_prefix_digits"]
    assert "attested (0, 1, 0, 0)" in check_proof(found[0])


def reordered(item: m.AttestationItem, order: tuple[int, ...], event_id: str | None = None) -> m.AttestationItem:
    """An honest attestation in another order of its parts, which nothing signs."""
    whole = dlc.parse_attestation_untrusted(base64.b64decode(item.tlv))
    forged = msgspec.structs.replace(
        whole,
        event_id=event_id or whole.event_id,
        signatures=tuple(whole.signatures[i] for i in order),
        outcomes=tuple(whole.outcomes[i] for i in order),
    )
    return attestation_item_untrusted(item.payee, b64(dlc.encode_attestation(forged)))


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (2, 0), (3, 0, 1, 2)])
def test_a_shuffled_attestation_frames_nobody(order: tuple[int, ...]) -> None:
    honest = CHEAT.attests(ROUND.oracles[CHEAT.name][0], (1, 1, 1, 1))
    partial = VALIDATORS[2].attests(VALIDATORS[2].announces("nostrain/1/x/y/0", 4, ROUND.deadlines.attest_by, ITEM.payee), (1, 0, 0, 0))
    announced = VALIDATORS[2].announces("nostrain/1/x/y/0", 4, ROUND.deadlines.attest_by, ITEM.payee)
    shuffled = attested([reordered(honest, order), reordered(partial, order)], by=STRANGER)
    assert kinds(shuffled, relayed([announced], by=VALIDATORS[2])) == []


def test_an_attestation_under_another_events_name_frames_nobody() -> None:
    other = CHEAT.announces("binary price", 4, ROUND.deadlines.attest_by, ITEM.payee)
    renamed = reordered(CHEAT.attests(other, (0, 1, 0, 1)), (0, 1, 2, 3), ITEM.event_id)
    assert kinds(attested([renamed], by=STRANGER), relayed([other], by=STRANGER)) == []


def test_honest_attestations_repeated_by_others_frame_nobody() -> None:
    items: list[m.AttestationItem] = []
    for party in VALIDATORS:
        for item, worker in zip(ROUND.oracles[party.name], WORKERS, strict=True):
            level = ROUND.standings[worker.pubkey].level
            items.append(party.attests(item, (1,) * level + (0,) * (4 - level)))
    assert kinds(attested(items, by=STRANGER)) == []
