"""BIP-340 signatures: published vectors, the fixed nonce, determinism."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.crypto import schnorr
from nostrain.crypto.points import InvalidScalar, N, add, base_multiply, encode_point, lift_x, multiply

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "dlc_l402.json").read_text())["schnorr_fixed_nonce"]["vectors"]
SCALARS = st.integers(1, N - 1)
MESSAGES = st.binary(min_size=32, max_size=32)


@pytest.mark.parametrize("vector", VECTORS, ids=[v["pubKey"][:8] for v in VECTORS])
def test_fixed_nonce_vectors(vector: dict) -> None:
    secret, nonce, message = (bytes.fromhex(vector["inputs"][name]) for name in ("privKey", "privNonce", "msgHash"))
    signature = schnorr.sign_with_nonce(secret, int.from_bytes(nonce, "big"), message)
    assert signature.hex() == vector["signature"]
    assert schnorr.public_key(secret).hex() == vector["pubKey"]
    assert schnorr.verify(bytes.fromhex(vector["pubKey"]), message, signature)
    assert encode_point(base_multiply(int.from_bytes(signature[32:], "big"))).hex() == vector["sigPoint"]


def test_bip340_vector_verifies() -> None:
    """Vector 0 of BIP-340 (secret key 3, message 0)."""
    public = bytes.fromhex("F9308A019258C31049344F85F89D5229B531C845836F99B08601F113BCE036F9")
    signature = bytes.fromhex(
        "E907831F80848D1069A5371B402410364BDF1C5F8307B0084C55F1CE2DCA821525F66A4A85EA8B71E482A74F382D2CE5EBEEE8FDB2172F477DF4900D310536C0"
    )
    assert schnorr.public_key((3).to_bytes(32, "big")) == public
    assert schnorr.verify(public, bytes(32), signature)
    assert not schnorr.verify(public, b"\1" + bytes(31), signature)


@settings(max_examples=40, deadline=None)
@given(SCALARS, SCALARS, MESSAGES)
def test_fixed_nonce_signs_for_every_parity(secret: int, nonce: int, message: bytes) -> None:
    """Keys and nonces of odd and even y alike verify, and s is the scalar of lift_x(R) + e·lift_x(P)."""
    key = secret.to_bytes(32, "big")
    for k in (nonce, N - nonce):
        for d in (key, (N - secret).to_bytes(32, "big")):
            signature = schnorr.sign_with_nonce(d, k, message)
            public = schnorr.public_key(d)
            assert schnorr.verify(public, message, signature)
            anticipated = add([lift_x(signature[:32]), multiply(lift_x(public), schnorr.challenge(signature[:32], public, message))])
            assert base_multiply(int.from_bytes(signature[32:], "big")) == anticipated


@settings(max_examples=30, deadline=None)
@given(SCALARS, MESSAGES)
def test_signing_is_deterministic_and_bound_to_key_and_message(secret: int, message: bytes) -> None:
    key = secret.to_bytes(32, "big")
    signature = schnorr.sign(key, message)
    assert schnorr.sign(key, message) == signature
    assert schnorr.verify(schnorr.public_key(key), message, signature)
    assert not schnorr.verify(schnorr.public_key(key), sha256(message).digest(), signature)
    assert not schnorr.verify(schnorr.public_key(sha256(key).digest()), message, signature)
    assert schnorr.sign(key, sha256(message).digest())[:32] != signature[:32], "a nonce was used for two messages"


@pytest.mark.parametrize("secret", [b"", bytes(31), bytes(32), N.to_bytes(32, "big"), b"\xff" * 32])
def test_bad_secrets_are_refused_without_being_shown(secret: bytes) -> None:
    for use in (schnorr.public_key, lambda s: schnorr.sign(s, bytes(32)), lambda s: schnorr.sign_with_nonce(s, 1, bytes(32))):
        with pytest.raises(InvalidScalar) as caught:
            use(secret)
        assert secret.hex() not in str(caught.value) or not secret


@pytest.mark.parametrize("sizes", [(31, 32, 64), (32, 31, 64), (32, 32, 63), (33, 32, 64), (32, 32, 65), (0, 0, 0)])
def test_malformed_arguments_do_not_verify(sizes: tuple[int, int, int]) -> None:
    assert not schnorr.verify(*(bytes([2]) * size for size in sizes))
