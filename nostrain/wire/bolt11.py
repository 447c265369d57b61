"""Lightning invoices as text (BOLT 11): a strict reader and writer of what this project uses.

Of the fields, `p s d h n x c m 9` are read; fallback addresses and route hints are skipped, as are fields of a wrong length and unknown ones,
which is what Core Lightning and the specification's vectors do. Stricter than the specification: no field that is read may come twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec
from coincurve import PublicKey

# pynostr's plain bech32 module, as in wire/nip19.py; it puts no limit on the length.
from pynostr import bech32

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.units import Digest, Msat, UnixTime, is_hex32

MAX_LENGTH: Final = 7_089
"""Characters of the longest invoice that fits a QR code; ours are about 300."""
DEFAULT_EXPIRY_S: Final = 3_600
DEFAULT_MIN_FINAL_CLTV: Final = 18
MAX_MSAT: Final = 21_000_000 * 10**11
BASIC_FEATURES: Final = 1 << 8 | 1 << 14
"""`var_onion_optin` and `payment_secret`, both compulsory: what every invoice needs (BOLT 9)."""
_KNOWN_FEATURES: Final = frozenset({8, 14, 16, 48})
_SIGNATURE_WORDS: Final = 104
_TIMESTAMP_WORDS: Final = 7
_HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
_PREFIX: Final = re.compile(r"ln(bcrt|bc|tbs|tb)(?:([1-9][0-9]{0,19})([munp]?))?")
_UNITS: Final = {"": 10**11, "m": 10**8, "u": 10**5, "n": 10**2}
"""msat for one of each; `p` is a tenth of a msat and handled apart."""
_LENGTHS: Final = {"p": 52, "s": 52, "h": 52, "n": 53}
_READ: Final = frozenset("psdhnxcm9")


class Bolt11(msgspec.Struct, frozen=True, kw_only=True):
    """What an invoice says. `currency` is `bc`, `tb`, `tbs` or `bcrt`; `payee` a compressed key, `metadata` any bytes, both hex."""

    currency: str
    payment_hash: Digest
    payment_secret: str
    created_at: UnixTime
    amount_msat: Msat | None = None
    description: str | None = None
    description_hash: str | None = None
    expiry_s: int = DEFAULT_EXPIRY_S
    min_final_cltv: int = DEFAULT_MIN_FINAL_CLTV
    features: int = BASIC_FEATURES
    metadata: str = ""
    payee: str = ""


def encode_bolt11(invoice: Bolt11, sign: Callable[[bytes], bytes]) -> str:
    """The text of `invoice`; `sign` makes the 65-byte recoverable signature (R ‖ S ‖ recovery id) of a message, hashed with SHA-256.

    `payee` is left out: readers recover it from the signature. Raises LocalProtocolError.
    """
    if (invoice.description is None) == (invoice.description_hash is None) or not is_hex32(invoice.payment_hash):
        raise LocalProtocolError("bolt11: exactly one of description and description_hash, and a payment hash of 32 bytes")
    prefix = f"ln{invoice.currency}{_amount_text(invoice.amount_msat)}"
    if _PREFIX.fullmatch(prefix) is None:
        raise LocalProtocolError(f"bolt11: {prefix} is no prefix")
    words = _number(invoice.created_at, _TIMESTAMP_WORDS)
    words += _field("s", _words(bytes.fromhex(invoice.payment_secret))) + _field("p", _words(bytes.fromhex(invoice.payment_hash)))
    if invoice.description is not None:
        words += _field("d", _words(invoice.description.encode()))
    if invoice.description_hash is not None:
        words += _field("h", _words(bytes.fromhex(invoice.description_hash)))
    if invoice.metadata:
        words += _field("m", _words(bytes.fromhex(invoice.metadata)))
    if invoice.expiry_s != DEFAULT_EXPIRY_S:
        words += _field("x", _number(invoice.expiry_s))
    if invoice.min_final_cltv != DEFAULT_MIN_FINAL_CLTV:
        words += _field("c", _number(invoice.min_final_cltv))
    words += _field("9", _number(invoice.features))
    signature = sign(_signed_bytes(prefix, words))
    return str(bech32.bech32_encode(prefix, words + _words(signature), bech32.Encoding.BECH32))


def unsigned(message: bytes) -> bytes:
    """A `sign` for `encode_bolt11` that leaves the place empty, to be filled in by lightningd's `signinvoice`."""
    return bytes(65)


def parse_bolt11_untrusted(text: str) -> Bolt11:
    """Read an invoice and check its signature. Raises RemoteProtocolError."""
    prefix, words = _split_untrusted(text)
    invoice = _read_untrusted(prefix, words[:-_SIGNATURE_WORDS])
    payee = _payee_untrusted(_signed_bytes(prefix, words[:-_SIGNATURE_WORDS]), _bytes(words[-_SIGNATURE_WORDS:]), invoice.payee)
    return msgspec.structs.replace(invoice, payee=payee)


def parse_unsigned_untrusted(text: str) -> Bolt11:
    """Read an invoice whose signature is yet to be made: it is ignored. Raises RemoteProtocolError."""
    prefix, words = _split_untrusted(text)
    return _read_untrusted(prefix, words[:-_SIGNATURE_WORDS])


def _split_untrusted(text: str) -> tuple[str, list[int]]:
    if len(text) > MAX_LENGTH:
        raise RemoteProtocolError("bolt11", f"{len(text)} characters, more than {MAX_LENGTH}")
    prefix, words, encoding = bech32.bech32_decode(text)
    if encoding is not bech32.Encoding.BECH32:
        raise RemoteProtocolError("bolt11", "not bech32, or its checksum is wrong")
    if len(words) < _TIMESTAMP_WORDS + _SIGNATURE_WORDS:
        raise RemoteProtocolError("bolt11", "too short")
    return prefix, words


def _read_untrusted(prefix: str, words: list[int]) -> Bolt11:
    matched = _PREFIX.fullmatch(prefix)
    if matched is None:
        raise RemoteProtocolError("bolt11", f"unknown currency or amount in {prefix[:32]!r}")
    fields = dict(_fields_untrusted(words[_TIMESTAMP_WORDS:]))
    for name in "ps":
        if name not in fields:
            raise RemoteProtocolError("bolt11", f"no {name} field")
    if ("d" in fields) == ("h" in fields):
        raise RemoteProtocolError("bolt11", "not exactly one of d and h")
    features = _value(fields.get("9", []))
    unknown = [bit for bit in range(0, features.bit_length(), 2) if features >> bit & 1 and bit not in _KNOWN_FEATURES]
    if unknown:
        raise RemoteProtocolError("bolt11", f"asks for the unknown features {unknown}")
    try:
        description = _bytes_untrusted(fields["d"]).decode() if "d" in fields else None
    except UnicodeDecodeError:
        raise RemoteProtocolError("bolt11", "the description is not UTF-8") from None
    return Bolt11(
        currency=matched[1],
        amount_msat=_amount_untrusted(matched[2], matched[3]),
        created_at=UnixTime(_value(words[:_TIMESTAMP_WORDS])),
        payment_hash=Digest(_bytes_untrusted(fields["p"]).hex()),
        payment_secret=_bytes_untrusted(fields["s"]).hex(),
        description=description,
        description_hash=_bytes_untrusted(fields["h"]).hex() if "h" in fields else None,
        expiry_s=_value(fields["x"]) if "x" in fields else DEFAULT_EXPIRY_S,
        min_final_cltv=_value(fields["c"]) if "c" in fields else DEFAULT_MIN_FINAL_CLTV,
        features=features,
        metadata=_bytes_untrusted(fields["m"]).hex() if "m" in fields else "",
        payee=_bytes_untrusted(fields["n"]).hex() if "n" in fields else "",
    )


def _fields_untrusted(words: list[int]) -> Iterator[tuple[str, list[int]]]:
    """The fields that we read, each once."""
    seen: set[str] = set()
    at = 0
    while at < len(words):
        if at + 3 > len(words) or at + 3 + (length := words[at + 1] * 32 + words[at + 2]) > len(words):
            raise RemoteProtocolError("bolt11", "a field is cut off")
        name, data = bech32.CHARSET[words[at]], words[at + 3 : at + 3 + length]
        at += 3 + length
        if name not in _READ or length != _LENGTHS.get(name, length):
            continue
        if name in seen:
            raise RemoteProtocolError("bolt11", f"two {name} fields")
        if name in "xc9" and (not data or data[0] == 0 or (name != "9" and length > 7)):
            raise RemoteProtocolError("bolt11", f"the number in {name} is not minimal, or absurd")
        seen.add(name)
        yield name, data


def _amount_untrusted(digits: str | None, unit: str | None) -> Msat | None:
    if digits is None:
        return None
    if unit == "p":
        if digits[-1] != "0":
            raise RemoteProtocolError("bolt11", "a fraction of a millisatoshi")
        return Msat(int(digits) // 10)
    amount = int(digits) * _UNITS[unit or ""]
    if amount > MAX_MSAT:
        raise RemoteProtocolError("bolt11", "more than all bitcoin")
    return Msat(amount)


def _amount_text(amount: Msat | None) -> str:
    """The shortest spelling."""
    if amount is None:
        return ""
    for unit, size in _UNITS.items():
        if amount % size == 0:
            return f"{amount // size}{unit}"
    return f"{amount * 10}p"


def _payee_untrusted(message: bytes, signature: bytes, named: str) -> str:
    """The key that signed; with an `n` field, that key, for which only low-S signatures count."""
    if named and int.from_bytes(signature[32:64], "big") > _HALF_ORDER:
        raise RemoteProtocolError("bolt11", "the signature is not canonical (high S)")
    recovered = []
    # With a key at hand the recovery id is of no account: the signature is valid if any id leads to that key.
    for recovery in range(4) if named else signature[64:]:
        try:
            recovered.append(PublicKey.from_signature_and_message(signature[:64] + bytes([recovery]), message).format().hex())
        except ValueError:
            continue
    if not recovered or (named and named not in recovered):
        raise RemoteProtocolError("bolt11", "the signature is not valid")
    return named or str(recovered[0])


def _signed_bytes(prefix: str, words: list[int]) -> bytes:
    return prefix.encode() + _bytes(words, pad=True)


def _field(name: str, words: list[int]) -> list[int]:
    if len(words) > 1023:
        raise LocalProtocolError(f"bolt11: the {name} field is longer than 639 bytes")
    return [bech32.CHARSET.index(name), len(words) // 32, len(words) % 32, *words]


def _words(data: bytes) -> list[int]:
    return list(bech32.convertbits(data, 8, 5))


def _bytes(words: list[int], *, pad: bool = False) -> bytes:
    bits = len(words) * 5
    value = _value(words)
    return (value << -bits % 8).to_bytes((bits + 7) // 8, "big") if pad else (value >> bits % 8).to_bytes(bits // 8, "big")


def _bytes_untrusted(words: list[int]) -> bytes:
    if _value(words) & ((1 << len(words) * 5 % 8) - 1):
        raise RemoteProtocolError("bolt11", "bits after the end of a field")
    return _bytes(words)


def _value(words: list[int]) -> int:
    value = 0
    for word in words:
        value = value << 5 | word
    return value


def _number(value: int, size: int | None = None) -> list[int]:
    """Big-endian words: `size` of them, or as few as possible."""
    if value <= 0 or (size is not None and value >> 5 * size):
        raise LocalProtocolError(f"bolt11: {value} cannot be written")
    size = (value.bit_length() + 4) // 5 if size is None else size
    return [value >> 5 * (size - 1 - index) & 31 for index in range(size)]
