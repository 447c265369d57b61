"""The points that anticipate attestations, nonces, thermometers and endorsements."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.crypto import schnorr
from nostrain.crypto.oracle import (
    ANNOUNCEMENT_TAG,
    ATTESTATION_TAG,
    attestation_scalar,
    endorsement_message,
    is_thermometer,
    level_point,
    nonce_scalar,
    outcome_message,
    outcome_point,
    verify_endorsement,
)
from nostrain.crypto.points import InvalidPoint, InvalidScalar, N, base_multiply
from nostrain.hashes import tagged_hash

from .lock_world import LEVELS, Oracle, secret, thermometer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dlc_l402.json").read_text())


def test_tags_and_signed_message_are_those_of_the_vectors() -> None:
    assert VECTORS["tags"] == {tag: sha256(tag.encode()).hexdigest() for tag in (ANNOUNCEMENT_TAG, ATTESTATION_TAG)}
    raw = bytes.fromhex(VECTORS["attestations"][0]["hex"])
    pubkey, outcome = VECTORS["attestations"][0]["pubkey"], VECTORS["attestations"][0]["outcomes"][0]
    at = raw.index(bytes.fromhex(pubkey)) + 34
    assert schnorr.verify(bytes.fromhex(pubkey), outcome_message(outcome), raw[at : at + 64])
    assert base_multiply(attestation_scalar(raw[at : at + 64])) == outcome_point(bytes.fromhex(pubkey), raw[at : at + 32], outcome)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, LEVELS), st.integers(0, LEVELS))
def test_a_level_is_opened_by_the_digits_up_to_it(salt: int, level: int, attested: int) -> None:
    """Over many keys and nonces of either parity: Σ s_i·G = T_k exactly when the attested level reaches k."""
    oracle = Oracle.make(1, str(salt))
    target = level_point(bytes.fromhex(oracle.public.pubkey), [bytes.fromhex(nonce) for nonce in oracle.public.nonces], level)
    opening = sum(oracle.attest(thermometer(attested))[:level]) % N
    assert (base_multiply(opening) == target) == (attested >= level)


def test_outcomes_have_different_points() -> None:
    oracle = Oracle.make(1).public
    key, nonce = bytes.fromhex(oracle.pubkey), bytes.fromhex(oracle.nonces[0])
    assert outcome_point(key, nonce, "0") != outcome_point(key, nonce, "1")
    assert outcome_point(key, nonce) == outcome_point(key, nonce, "1")


def test_points_off_the_curve_and_levels_out_of_range_are_refused() -> None:
    oracle = Oracle.make(1).public
    key, nonces = bytes.fromhex(oracle.pubkey), [bytes.fromhex(nonce) for nonce in oracle.nonces]
    with pytest.raises(InvalidPoint):
        outcome_point(b"\xff" * 32, nonces[0])
    with pytest.raises(InvalidPoint):
        outcome_point(key, b"\xff" * 32)
    for level in (0, LEVELS + 1):
        with pytest.raises(ValueError, match="digits"):
            level_point(key, nonces, level)
    with pytest.raises(InvalidScalar):
        attestation_scalar(bytes(64))


def test_nonces_depend_on_secret_event_and_digit() -> None:
    variants = [
        (b"a" * 32, b"event", 0),
        (b"b" * 32, b"event", 0),
        (b"a" * 32, b"evenT", 0),
        (b"a" * 32, b"event", 1),
        (b"a" * 32, b"event", 256),
    ]
    assert len({nonce_scalar(*variant) for variant in variants}) == len(variants)
    assert nonce_scalar(*variants[0]) == nonce_scalar(*variants[0])


@given(st.lists(st.integers(-1, 2), max_size=6))
def test_thermometers_are_ones_then_zeros(digits: list[int]) -> None:
    assert is_thermometer(digits) == (digits in [thermometer(level, len(digits)) for level in range(len(digits) + 1)])


def test_endorsement_binds_both_keys_and_the_run() -> None:
    key, nostr = secret("oracle"), "ab" * 32
    oracle = schnorr.public_key(key).hex()
    signature = schnorr.sign(key, endorsement_message(nostr, "run")).hex()
    assert endorsement_message(nostr, "run") == tagged_hash("nostrain/oracle", b"\xab" * 32, sha256(b"run").digest())
    assert verify_endorsement(oracle, nostr, "run", signature)
    assert not verify_endorsement(oracle, nostr, "other", signature)
    assert not verify_endorsement(oracle, "cd" * 32, "run", signature)
    assert not verify_endorsement(nostr, nostr, "run", signature)
    for malformed in ("", signature[:-1], signature.upper(), signature + "00", "zz" * 64):
        assert not verify_endorsement(oracle, nostr, "run", malformed)
    assert not verify_endorsement(oracle[:-1], nostr, "run", signature)
