"""NIP-44 version 2 written down once more, from the NIP's text, for what nostr-sdk does not let us say: conversation keys, nonces, message keys.
For tests only: nothing is compared in constant time.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import NamedTuple

import coincurve
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms


class MessageKeys(NamedTuple):
    """What a conversation key and a nonce give."""

    chacha_key: bytes
    chacha_nonce: bytes
    hmac_key: bytes


def conversation_key(secret: str, public: str) -> bytes:
    """HKDF-extract of the shared point's x."""
    point = coincurve.PublicKey(bytes.fromhex(f"02{public}")).multiply(bytes.fromhex(secret))
    shared: bytes = point.format()
    return _hmac(b"nip44-v2", shared[1:])


def message_keys(key: bytes, nonce: bytes) -> MessageKeys:
    """HKDF-expand to 76 bytes."""
    blocks = [b""]
    for number in (1, 2, 3):
        blocks.append(_hmac(key, blocks[-1] + nonce + bytes([number])))
    expanded = b"".join(blocks)
    return MessageKeys(expanded[:32], expanded[32:44], expanded[44:76])


def padded_length(length: int) -> int:
    """`calc_padded_len`: how long a plaintext of `length` bytes is padded to."""
    if length <= 32:
        return 32
    power = 1 << (length - 1).bit_length()
    chunk = 32 if power <= 256 else power // 8
    return chunk * ((length - 1) // chunk + 1)


def padded(plaintext: bytes) -> bytes:
    """The length, the plaintext and zeros."""
    return len(plaintext).to_bytes(2, "big") + plaintext + bytes(padded_length(len(plaintext)) - len(plaintext))


def seal(key: bytes, nonce: bytes, content: bytes, *, version: int = 2) -> str:
    """The payload of `content`, which is padded already."""
    keys = message_keys(key, nonce)
    cipher = algorithms.ChaCha20(keys.chacha_key, bytes(4) + keys.chacha_nonce)
    text = Cipher(cipher, mode=None).encryptor().update(content)
    return base64.b64encode(bytes([version]) + nonce + text + _hmac(keys.hmac_key, nonce + text)).decode()


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()
