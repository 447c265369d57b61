"""Endorsements of oracles, and what messages say of an oracle's announcements and attestations."""

from __future__ import annotations

import base64
import json
from hashlib import sha256

import msgspec
import pytest

from nostrain.crypto import schnorr
from nostrain.protocol import messages as m
from nostrain.protocol.limits import MAX_ORACLE_ITEMS
from nostrain.wire import dlc
from nostrain.wire.messages import read_message_untrusted
from tests.docs.examples import ROUNDS, VALIDATORS, WORKERS
from tests.wire.changed import EVERYTHING, EXAMPLES, ID, refused, with_content

RUN = EXAMPLES.run
OTHER_CHAIN = VALIDATORS[1].chain_link(RUN, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"endorsement": ""},
        {"endorsement": "00" * 64},
        {"endorsement": VALIDATORS[0].endorsement(RUN).upper()},
        {"endorsement": " ".join(VALIDATORS[0].endorsement(RUN))},
        {"endorsement": VALIDATORS[1].endorsement(RUN)},
        {"endorsement": VALIDATORS[0].endorsement(ID)},
        {"endorsement": VALIDATORS[0].endorsement(RUN, length=ROUNDS + 1)},
        {"chain_length": ROUNDS + 1},
        {"chain_end": OTHER_CHAIN},
        {"oracle": VALIDATORS[1].oracle},
        {"oracle": VALIDATORS[1].oracle, "endorsement": VALIDATORS[1].endorsement(RUN), "chain_end": OTHER_CHAIN},
    ],
)
def test_an_oracle_key_that_does_not_endorse_key_and_chain_is_refused(changes: dict[str, object]) -> None:
    refused(with_content("enrolment validator 0", **changes), f"does not endorse {VALIDATORS[0].pubkey[:8]} and its hash chain")
    entries = json.loads(EVERYTHING["announcement"].content)["validators"]
    listed = [entries[0] | changes, *entries[1:]]
    refused(with_content("announcement", validators=listed), f"does not endorse {VALIDATORS[0].pubkey[:8]} and its hash chain")


@pytest.mark.parametrize("missing", ["endorsement", "chain_end"])
def test_an_enrolled_oracle_needs_endorsement_and_chain(missing: str) -> None:
    refused(with_content("enrolment validator 0", **{missing: None}), "an oracle key without endorsement or hash chain")
    entries = json.loads(EVERYTHING["announcement"].content)["validators"]
    refused(with_content("announcement", validators=[entries[0] | {missing: None}]), f"Expected `str`.*{missing}")


def test_an_entry_under_another_validators_key_is_refused() -> None:
    entries = json.loads(EVERYTHING["announcement"].content)["validators"]
    refused(with_content("announcement", validators=[entries[0] | {"pubkey": WORKERS[0].pubkey}]), "does not endorse")


def test_an_entry_endorsed_for_another_run_is_refused() -> None:
    entry = msgspec.to_builtins(VALIDATORS[0].entry(ID))
    refused(with_content("announcement", validators=[entry]), "does not endorse")


def item_of(body: m.OracleAnnouncements | m.Attestation, tlv: bytes) -> dict[str, object]:
    return {"items": [{"payee": body.items[0].payee, "tlv": base64.b64encode(tlv).decode()}]}


def announcements() -> m.OracleAnnouncements:
    body = read_message_untrusted(EVERYTHING["oracle announcements 0"]).body
    assert isinstance(body, m.OracleAnnouncements)
    return body


def attestation() -> m.Attestation:
    body = read_message_untrusted(EVERYTHING["attestation 0"]).body
    assert isinstance(body, m.Attestation)
    return body


def test_what_is_read_of_an_oracle_is_what_its_tlv_says() -> None:
    promised, kept = announcements().items[0], attestation().items[0]
    data = base64.b64decode(promised.tlv)
    assert promised.digest == sha256(data).hexdigest()
    assert promised.event_id == f"nostrain/1/{EXAMPLES.round_id}/{WORKERS[0].pubkey}/0"
    assert (kept.event_id, kept.oracle, kept.nonces) == (promised.event_id, promised.oracle, promised.nonces)
    assert kept.digits == (1, 1, 1, 1)


def test_an_announcement_under_the_plain_convention_is_refused() -> None:
    parsed = dlc.parse_announcement_untrusted(base64.b64decode(announcements().items[0].tlv))
    event_tlv = dlc.encode_event(parsed.event)
    value = event_tlv[3 + (1 if len(event_tlv) < 256 else 3) :]
    plain = schnorr.sign(VALIDATORS[0].root.oracle_key(), sha256(value).digest()).hex()
    tlv = dlc.encode_announcement(msgspec.structs.replace(parsed, signature=plain))
    assert dlc.parse_announcement_untrusted(tlv).convention is dlc.Convention.PLAIN_SHA256
    refused(with_content("oracle announcements 0", **item_of(announcements(), tlv)), "under the tagged convention")


@pytest.mark.parametrize("form", [dlc.DigitDescriptor(4, base=10), dlc.DigitDescriptor(3, signed=True), dlc.EnumDescriptor(("0", "1"))])
def test_an_announcement_that_is_no_thermometer_is_refused(form: dlc.DigitDescriptor | dlc.EnumDescriptor) -> None:
    parsed = dlc.parse_announcement_untrusted(base64.b64decode(announcements().items[0].tlv))
    nonces = parsed.event.nonces[: 1 if isinstance(form, dlc.EnumDescriptor) else 4]
    event = msgspec.structs.replace(parsed.event, descriptor=form, nonces=nonces)
    signature = schnorr.sign(VALIDATORS[0].root.oracle_key(), dlc.announcement_message(event)).hex()
    tlv = dlc.encode_announcement(dlc.Announcement(signature, VALIDATORS[0].oracle, event))
    refused(with_content("oracle announcements 0", **item_of(announcements(), tlv)), "unsigned binary digits")


def test_an_attestation_under_the_plain_convention_is_refused() -> None:
    key, nonces = VALIDATORS[0].root.oracle_key(), range(77, 81)
    signatures = tuple(schnorr.sign_with_nonce(key, nonce, sha256(b"1").digest()).hex() for nonce in nonces)
    parsed = dlc.parse_attestation_untrusted(base64.b64decode(attestation().items[0].tlv))
    for event_id in (None, parsed.event_id):
        tlv = dlc.encode_attestation(msgspec.structs.replace(parsed, event_id=event_id, signatures=signatures, outcomes=("1",) * 4))
        assert dlc.parse_attestation_untrusted(tlv).convention is dlc.Convention.PLAIN_SHA256
        refused(with_content("attestation 0", **item_of(attestation(), tlv)), "under the tagged convention")


@pytest.mark.parametrize("text", ["", "!", "AAAA", "fdd824", "QQ==\n", "QQ=", "é" * 8])
def test_what_is_no_tlv_is_refused(text: str) -> None:
    items = [{"payee": WORKERS[0].pubkey, "tlv": text}]
    refused(with_content("oracle announcements 0", items=items), "base64|promised|expected|TLV|BigSize|do not print")
    refused(with_content("attestation 0", items=items), "base64|promised|expected|TLV|BigSize|do not print")


def test_too_many_oracle_items_are_refused() -> None:
    items = [{"payee": WORKERS[0].pubkey, "tlv": ""}] * (MAX_ORACLE_ITEMS + 1)
    refused(with_content("oracle announcements 0", items=items), "26 oracle announcements, 25 is the limit")
