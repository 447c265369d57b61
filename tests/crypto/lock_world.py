"""Oracles with known secrets, for the tests of the threshold lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from nostrain.crypto import schnorr
from nostrain.crypto.lock import LockContext, LockOracle
from nostrain.crypto.oracle import attestation_scalar, outcome_message
from nostrain.crypto.points import base_multiply, encode_point, scalar_from_bytes
from nostrain.units import Digest, EventId, Msat, Pubkey

LEVELS = 4


def secret(label: str) -> bytes:
    """A secret scalar for a label: half of them have a point of odd y, so parities of keys and nonces vary with the labels."""
    return sha256(label.encode()).digest()


@dataclass(frozen=True)
class Oracle:
    """An oracle's key and nonces, and what it signs."""

    index: int
    key: bytes
    nonces: tuple[int, ...]

    @classmethod
    def make(cls, index: int, salt: str = "", levels: int = LEVELS) -> Oracle:
        nonces = (scalar_from_bytes(secret(f"{salt}/{index}/{level}")) for level in range(levels))
        return cls(index, secret(f"{salt}/{index}"), tuple(nonces))

    @property
    def public(self) -> LockOracle:
        nonces = tuple(encode_point(base_multiply(k))[1:].hex() for k in self.nonces)
        pubkey = Pubkey(schnorr.public_key(self.key).hex())
        return LockOracle(self.index, pubkey, Digest(sha256(self.key).hexdigest()), nonces)

    def attest(self, digits: Sequence[int]) -> list[int]:
        """The scalars of a full attestation."""
        pairs = zip(self.nonces, digits, strict=True)
        return [attestation_scalar(schnorr.sign_with_nonce(self.key, k, outcome_message(str(digit)))) for k, digit in pairs]


def thermometer(level: int, levels: int = LEVELS) -> list[int]:
    return [1] * level + [0] * (levels - level)


def context(oracles: Sequence[Oracle], level: int, **changes: object) -> LockContext:
    fields: dict[str, object] = {
        "network": "simnet",
        "run": "a" * 64,
        "announcement_id": EventId("b" * 64),
        "payer": Pubkey("c" * 64),
        "payee": Pubkey("d" * 64),
        "level": level,
        "oracles": tuple(oracle.public for oracle in oracles),
        "amount_msat": Msat(50_000),
    }
    return LockContext(**(fields | changes))  # type: ignore[arg-type]
