"""What an oracle signs, the points that anticipate its signatures, and its nonces (dlcspecs Oracle.md; design section 6).

The digit k = 1 of an announced event is signed as m = tagged_hash("DLC/oracle/attestation/v0", "1") with the announced nonce R_k.
Whoever knows R_k and P computes S_k = lift_x(R_k) + e·lift_x(P) beforehand; the signature's s is its scalar, s·G = S_k.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Final

from nostrain.crypto import schnorr
from nostrain.crypto.points import N, Point, add, lift_x, multiply, scalar_from_bytes
from nostrain.hashes import tagged_hash
from nostrain.units import is_hex32

ANNOUNCEMENT_TAG: Final = "DLC/oracle/announcement/v0"
ATTESTATION_TAG: Final = "DLC/oracle/attestation/v0"


def outcome_message(outcome: str) -> bytes:
    """The 32 bytes that are signed for an outcome: "0" or "1" for a digit. Nothing of the event enters: everything hangs on the nonce."""
    return tagged_hash(ATTESTATION_TAG, outcome.encode())


@lru_cache(maxsize=4096)
def outcome_point(public: bytes, nonce: bytes, outcome: str = "1") -> Point:
    """S = lift_x(R) + e·lift_x(P) for x-only `public` P and `nonce` R: the point of the scalar that attests `outcome`.

    Raises InvalidPoint when either is not on the curve (or the sum is infinity, which takes 2^128 work to arrange).
    """
    e = schnorr.challenge(nonce, public, outcome_message(outcome))
    return add([lift_x(nonce), multiply(lift_x(public), e)])


def level_point(public: bytes, nonces: Sequence[bytes], level: int) -> Point:
    """T_k = Σ_{i≤k} S_i over the first `level` nonces: opened only by the attestation of *every* digit up to k as 1.

    Raises InvalidPoint, ValueError when there are fewer nonces than `level` or level < 1.
    """
    if not 1 <= level <= len(nonces):
        raise ValueError(f"level {level} of an announcement with {len(nonces)} digits")
    return add([outcome_point(public, nonce) for nonce in nonces[:level]])


def attestation_scalar(signature: bytes) -> int:
    """s of a 64-byte attestation signature. Raises InvalidScalar (an s of 0 included)."""
    return scalar_from_bytes(signature[32:])


def nonce_scalar(secret: bytes, event_tlv: bytes, digit: int) -> int:
    """The secret nonce k of one digit (counted from 0): PRF(secret, event, digit) with R = k·G.

    `event_tlv` is the full oracle_event TLV *encoded with an empty nonce list*: the nonces are functions of everything else in the
    event, and could not be functions of themselves. Any difference in id, maturity or descriptor gives unrelated nonces.
    """
    for attempt in range(256):
        data = tagged_hash("nostrain/oracle/nonce", secret, sha256(event_tlv).digest(), digit.to_bytes(2, "big"), bytes([attempt]))
        if 0 < (k := int.from_bytes(data, "big")) < N:
            return k
    raise AssertionError("256 hashes in a row above the group order")


def is_thermometer(digits: Sequence[int]) -> bool:
    """Whether the digits are ones followed by zeros. An attestation that is not is a proof against its oracle."""
    return all(digit in (0, 1) for digit in digits) and list(digits) == sorted(digits, reverse=True)


def endorsement_message(nostr_pubkey: str, run: str) -> bytes:
    """tagged_hash("nostrain/oracle", nostr pubkey ‖ sha256(run)): what an oracle key signs to name its Nostr key in an enrolment."""
    return tagged_hash("nostrain/oracle", bytes.fromhex(nostr_pubkey), sha256(run.encode()).digest())


def verify_endorsement(oracle_pubkey: str, nostr_pubkey: str, run: str, signature: str) -> bool:
    """Whether the oracle key (hex) has endorsed `nostr_pubkey` (hex) for `run`. Malformed arguments are simply False."""
    if not (is_hex32(oracle_pubkey) and is_hex32(nostr_pubkey) and is_hex32(signature[:64]) and is_hex32(signature[64:])):
        return False
    return schnorr.verify(bytes.fromhex(oracle_pubkey), endorsement_message(nostr_pubkey, run), bytes.fromhex(signature))
