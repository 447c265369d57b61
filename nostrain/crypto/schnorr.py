"""BIP-340 Schnorr signatures over 32-byte messages: deterministic signing, verification, and signing with a nonce fixed beforehand.

Sources: BIP-340; dlcspecs Oracle.md for the fixed nonce that an oracle has announced.
"""

from __future__ import annotations

from coincurve import PrivateKey, PublicKeyXOnly

from nostrain.crypto.points import N, base_multiply, encode_point, require_scalar, scalar_from_bytes, scalar_to_bytes
from nostrain.hashes import tagged_hash


def public_key(secret: bytes) -> bytes:
    """The 32-byte x-only public key of a 32-byte secret. Raises InvalidScalar."""
    return encode_point(base_multiply(scalar_from_bytes(secret)))[1:]


def sign(secret: bytes, message: bytes) -> bytes:
    """The 64-byte signature of a 32-byte message.

    The auxiliary randomness of BIP-340 is derived from secret and message: the same message always gives the same bytes, so that a
    retry after a crash is the same event and not a second one. Raises InvalidScalar, ValueError on a message of another length.
    """
    scalar_from_bytes(secret)
    aux = tagged_hash("nostrain/schnorr/aux", secret, message)
    return PrivateKey(secret).sign_schnorr(message, aux)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is valid for `message` (32 bytes) under the x-only key `public`. Malformed arguments are simply False."""
    if len(public) != 32 or len(message) != 32 or len(signature) != 64:
        return False
    try:
        return PublicKeyXOnly(public).verify(signature, message)
    except ValueError:
        return False


def challenge(nonce: bytes, public: bytes, message: bytes) -> int:
    """e = int(tagged_hash("BIP0340/challenge", R ‖ P ‖ m)) mod n, each part 32 bytes."""
    return int.from_bytes(tagged_hash("BIP0340/challenge", nonce, public, message), "big") % N


def sign_with_nonce(secret: bytes, nonce: int, message: bytes) -> bytes:
    """The 64-byte signature of a 32-byte message whose R is lift_x(nonce·G): s = k' + e·d' with both negated for odd y.

    Two messages signed with one nonce give the secret away: the caller journals (nonce, message) first. Raises InvalidScalar.
    """
    d = scalar_from_bytes(secret)
    k = require_scalar(nonce)
    public, point = encode_point(base_multiply(d)), encode_point(base_multiply(k))
    even_d = d if public[0] == 2 else N - d
    even_k = k if point[0] == 2 else N - k
    s = (even_k + challenge(point[1:], public[1:], message) * even_d) % N
    return point[1:] + scalar_to_bytes(s)
