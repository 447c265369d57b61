"""An invoice that is not signed yet, for lightningd's `signinvoice` (BOLT 11). Reading invoices is left to lightningd's `decode`."""

from __future__ import annotations

from typing import Final

from pyln.proto import bech32

from nostrain.units import Digest, Msat, UnixTime

CURRENCIES: Final = {"bitcoin": "bc", "testnet": "tb", "testnet4": "tb", "signet": "tbs", "regtest": "bcrt"}
"""The currency in an invoice's prefix, by lightningd's name of the network."""
FEATURES: Final = 1 << 8 | 1 << 14 | 1 << 17
"""`var_onion_optin` and `payment_secret`, compulsory, and `basic_mpp` (BOLT 9)."""
_TIMESTAMP_WORDS: Final = 7
_SIGNATURE_BYTES: Final = 65
_MAX_WORDS: Final = 1023


def unsigned_invoice(
    network: str,
    payment_hash: Digest,
    payment_secret: bytes,
    amount_msat: Msat,
    created_at: UnixTime,
    *,
    description: str | None,
    description_hash: str | None,
    expiry_s: int,
    min_final_cltv: int,
) -> str:
    """The text of an invoice with an empty signature. Raises ValueError for a network without invoices, or a description that is too long."""
    if network not in CURRENCIES:
        raise ValueError(f"no invoices are known on {network}")
    words = _number(created_at, _TIMESTAMP_WORDS)
    words += _field("p", _words(bytes.fromhex(payment_hash))) + _field("s", _words(payment_secret))
    if description_hash is not None:
        words += _field("h", _words(bytes.fromhex(description_hash)))
    else:
        words += _field("d", _words((description or "").encode()))
    words += _field("x", _number(expiry_s)) + _field("c", _number(min_final_cltv)) + _field("9", _number(FEATURES))
    # In units of p, a tenth of a msat: always right, if not always the shortest.
    return str(bech32.bech32_encode(f"ln{CURRENCIES[network]}{amount_msat * 10}p", bytes(words + _words(bytes(_SIGNATURE_BYTES)))))


def _field(name: str, words: list[int]) -> list[int]:
    if len(words) > _MAX_WORDS:
        raise ValueError("the description is longer than 639 bytes")
    return [bech32.CHARSET.index(name), len(words) // 32, len(words) % 32, *words]


def _words(data: bytes) -> list[int]:
    """Five bits each, the last one filled up with zeros."""
    size = -(-len(data) * 8 // 5)
    return _number(int.from_bytes(data, "big") << (size * 5 - len(data) * 8), size)


def _number(value: int, size: int | None = None) -> list[int]:
    """Big-endian words: `size` of them, or as few as possible."""
    size = (value.bit_length() + 4) // 5 if size is None else size
    return [value >> 5 * (size - 1 - index) & 31 for index in range(size)]
