"""DLC oracle announcements and attestations as TLVs (dlcspecs Messaging.md and Oracle.md; design section 8).

    oracle_announcement  55332   signature 64 ‖ public key 32 ‖ oracle_event TLV
    oracle_event         55330   u16 count ‖ nonces 32 each ‖ u32 maturity ‖ descriptor TLV ‖ event id string
    enum_descriptor      55302   u16 count ‖ outcome strings
    digit_decomposition  55306   u16 base ‖ u8 signed ‖ unit string ‖ i32 precision ‖ u16 digits
    oracle_attestation   55400   [event id string] ‖ public key 32 ‖ u16 count ‖ signatures 64 each ‖ u16 count ‖ outcome strings

Two conventions for what is signed are in use. Ours is the BIP-340 tagged hash (of the full event TLV; of the outcome string); the older
one, a plain SHA-256 (of the event TLV's value; of the outcome), comes with attestations without an event id. It is read and named, and
releases nothing.
"""

from __future__ import annotations

from enum import Enum
from hashlib import sha256
from typing import Final, Literal

import msgspec

from nostrain.crypto import schnorr
from nostrain.crypto.oracle import ANNOUNCEMENT_TAG, outcome_message
from nostrain.crypto.points import InvalidPoint, lift_x
from nostrain.errors import RemoteProtocolError
from nostrain.hashes import tagged_hash
from nostrain.units import Pubkey, UnixTime
from nostrain.wire import tlv
from nostrain.wire.tlv import Reader

ANNOUNCEMENT: Final = 55332
EVENT: Final = 55330
ENUM: Final = 55302
DIGITS: Final = 55306
ATTESTATION: Final = 55400

MAX_TLV_BYTES: Final = 8192
MAX_NONCES: Final = 64
MAX_ENUM_OUTCOMES: Final = 64
MAX_TEXT_BYTES: Final = 256


class Convention(Enum):
    """What a signature turned out to sign. Only TAGGED releases money."""

    TAGGED = "tagged"
    PLAIN_SHA256 = "plain_sha256"


class EnumDescriptor(msgspec.Struct, frozen=True):
    """One of a list of outcomes, signed with a single nonce."""

    outcomes: tuple[str, ...]


class DigitDescriptor(msgspec.Struct, frozen=True):
    """A number by its digits, most significant first, one nonce each (and one for the sign when `signed`). Ours: base 2, unsigned."""

    digits: int
    base: int = 2
    signed: bool = False
    unit: str = ""
    precision: int = 0


class OracleEvent(msgspec.Struct, frozen=True):
    """What is going to be attested: nonce points (x-only hex), when (unix seconds), how, and its id."""

    nonces: tuple[str, ...]
    maturity: UnixTime
    descriptor: EnumDescriptor | DigitDescriptor
    event_id: str


class Announcement(msgspec.Struct, frozen=True):
    """An oracle's signed promise to attest `event`. `signature` is 128 hex; `convention` what it was found to sign."""

    signature: str
    pubkey: Pubkey
    event: OracleEvent
    convention: Convention = Convention.TAGGED

    @property
    def is_thermometer(self) -> bool:
        """Whether a lock may hang on it: our convention, base 2, unsigned."""
        form = self.event.descriptor
        return self.convention is Convention.TAGGED and isinstance(form, DigitDescriptor) and form.base == 2 and not form.signed


class Attestation(msgspec.Struct, frozen=True):
    """Signatures (128 hex) of the outcomes of one event, one each. The older layout has no event id."""

    event_id: str | None
    pubkey: Pubkey
    signatures: tuple[str, ...]
    outcomes: tuple[str, ...]
    convention: Convention = Convention.TAGGED

    @property
    def nonces(self) -> tuple[str, ...]:
        """R of every signature, x-only hex: those of the announcement that it fulfils."""
        return tuple(signature[:64] for signature in self.signatures)

    @property
    def scalars(self) -> tuple[str, ...]:
        """s of every signature, 32 bytes hex: what opens a lock."""
        return tuple(signature[64:] for signature in self.signatures)


def encode_event(event: OracleEvent) -> bytes:
    """The full oracle_event TLV. With `nonces=()` it is the input of the nonces' PRF (`crypto.oracle.nonce_scalar`)."""
    form = event.descriptor
    if isinstance(form, EnumDescriptor):
        descriptor = tlv.tlv(ENUM, len(form.outcomes).to_bytes(2, "big") + b"".join(map(tlv.text, form.outcomes)))
    else:
        body = form.base.to_bytes(2, "big") + bytes([form.signed]) + tlv.text(form.unit)
        descriptor = tlv.tlv(DIGITS, body + form.precision.to_bytes(4, "big", signed=True) + form.digits.to_bytes(2, "big"))
    nonces = len(event.nonces).to_bytes(2, "big") + b"".join(map(bytes.fromhex, event.nonces))
    return tlv.tlv(EVENT, nonces + event.maturity.to_bytes(4, "big") + descriptor + tlv.text(event.event_id))


def announcement_message(event: OracleEvent) -> bytes:
    """The 32 bytes that an announcement in our convention signs: the tagged hash of the full event TLV."""
    return tagged_hash(ANNOUNCEMENT_TAG, encode_event(event))


def encode_announcement(announcement: Announcement) -> bytes:
    """The oracle_announcement TLV."""
    head = bytes.fromhex(announcement.signature) + bytes.fromhex(announcement.pubkey)
    return tlv.tlv(ANNOUNCEMENT, head + encode_event(announcement.event))


def encode_attestation(attestation: Attestation) -> bytes:
    """The oracle_attestation TLV; without an event id when that is None."""
    name = b"" if attestation.event_id is None else tlv.text(attestation.event_id)
    count = len(attestation.signatures).to_bytes(2, "big")  # of signatures and, again, of outcomes: one each
    signatures = b"".join(map(bytes.fromhex, attestation.signatures))
    outcomes = b"".join(map(tlv.text, attestation.outcomes))
    return tlv.tlv(ATTESTATION, name + bytes.fromhex(attestation.pubkey) + count + signatures + count + outcomes)


def parse_announcement_untrusted(data: bytes) -> Announcement:
    """A verified announcement: strict encoding, valid and unrepeated nonces, as many as the descriptor asks for, a valid signature.

    Encoding it again gives `data`. Raises RemoteProtocolError, naming the oracle once its key was read.
    """
    outer = _open(data, ANNOUNCEMENT, "oracle announcement")
    signature, pubkey = outer.take(64), outer.take(32)
    event_tlv = outer.rest()
    event = _read_event(event_tlv, outer)
    for convention, message in (
        (Convention.TAGGED, tagged_hash(ANNOUNCEMENT_TAG, event_tlv)),
        (Convention.PLAIN_SHA256, sha256(_value(event_tlv, EVENT)).digest()),
    ):
        if schnorr.verify(pubkey, message, signature):
            return Announcement(signature.hex(), Pubkey(pubkey.hex()), event, convention)
    raise RemoteProtocolError("oracle announcement", "its signature is not valid", whose=pubkey.hex())


def parse_attestation_untrusted(data: bytes) -> Attestation:
    """A verified attestation: strict encoding in either layout, and every signature valid for its outcome in one convention.

    That it fulfils a given announcement is for `verify_attestation` to say. Encoding it again gives `data`. Raises RemoteProtocolError.
    """
    faults: list[str] = []
    for named in (True, False):
        try:
            found = _read_attestation(_open(data, ATTESTATION, "oracle attestation"), named)
        except RemoteProtocolError as error:
            faults.append(error.reason)
            continue
        for convention in Convention:
            if _signatures_verify(found, convention):
                return msgspec.structs.replace(found, convention=convention)
        faults.append("a signature is not valid")
    raise RemoteProtocolError("oracle attestation", f"{faults[0]} (read without an event id: {faults[1]})")


def verify_attestation(announcement: Announcement, attestation: Attestation) -> tuple[int, ...]:
    """The attested digits (0 or 1, as many as announced) if `attestation` fulfils `announcement` and may release money.

    Digits need not be a thermometer: `crypto.oracle.is_thermometer` tells, and one that is not is a proof against the oracle.
    Raises RemoteProtocolError naming the oracle.
    """

    def fault(reason: str) -> RemoteProtocolError:
        return RemoteProtocolError("oracle attestation", reason, whose=announcement.pubkey)

    if not announcement.is_thermometer:
        raise fault("the announcement is not of unsigned binary digits under the tagged convention: it releases nothing")
    if attestation.convention is not Convention.TAGGED or attestation.event_id is None:
        raise fault("signed under the plain SHA-256 convention or without an event id: it releases nothing")
    if attestation.pubkey != announcement.pubkey:
        raise fault(f"signed by {attestation.pubkey}")
    if attestation.event_id != announcement.event.event_id:
        raise fault("for another event")
    if attestation.nonces != announcement.event.nonces:
        raise fault("with other nonces than announced")
    if not set(attestation.outcomes) <= {"0", "1"}:
        raise fault("an outcome is not a binary digit")
    if len(attestation.outcomes) != len(attestation.signatures) or not _signatures_verify(attestation, Convention.TAGGED):
        raise fault("a signature is not valid")
    return tuple(map(int, attestation.outcomes))


def _open(data: bytes, kind: Literal[55332, 55400], what: str) -> Reader:
    """The value of the one TLV that `data` is."""
    if len(data) > MAX_TLV_BYTES:
        raise RemoteProtocolError(what, f"{len(data)} bytes, at most {MAX_TLV_BYTES} allowed")
    outer = Reader(data, what)
    value = outer.tlv(kind)
    outer.end()
    return value


def _value(data: bytes, kind: int) -> bytes:
    return Reader(data, "oracle announcement").tlv(kind).rest()


def _read_event(data: bytes, parent: Reader) -> OracleEvent:
    outer = Reader(data, "oracle announcement")
    reader = outer.tlv(EVENT)
    outer.end()
    count = reader.integer(2)
    if not 1 <= count <= MAX_NONCES:
        raise parent.fault(f"{count} nonces, 1 to {MAX_NONCES} allowed")
    nonces = [reader.take(32) for _ in range(count)]
    if len(set(nonces)) != count:
        raise parent.fault("a nonce is announced twice")
    try:
        for nonce in nonces:
            lift_x(nonce)
    except InvalidPoint as error:
        raise parent.fault(f"a nonce is {error}") from None
    maturity = UnixTime(reader.integer(4))
    descriptor, expected = _read_descriptor(reader)
    if count != expected:
        raise parent.fault(f"{count} nonces where the descriptor needs {expected}")
    event_id = reader.text(MAX_TEXT_BYTES)
    reader.end()
    return OracleEvent(tuple(nonce.hex() for nonce in nonces), maturity, descriptor, event_id)


def _read_descriptor(parent: Reader) -> tuple[EnumDescriptor | DigitDescriptor, int]:
    """The descriptor, and how many nonces it needs."""
    kind = parent.peek_tlv()
    if kind not in (ENUM, DIGITS):
        raise parent.fault(f"descriptor of unknown type {kind}")
    reader = parent.tlv(kind)
    form = _read_enum(reader) if kind == ENUM else _read_digits(reader)
    reader.end()
    return form, 1 if isinstance(form, EnumDescriptor) else form.digits + form.signed


def _read_enum(reader: Reader) -> EnumDescriptor:
    count = reader.integer(2)
    if not 1 <= count <= MAX_ENUM_OUTCOMES:
        raise reader.fault(f"{count} possible outcomes, 1 to {MAX_ENUM_OUTCOMES} allowed")
    outcomes = tuple(reader.text(MAX_TEXT_BYTES) for _ in range(count))
    if len(set(outcomes)) != count:
        raise reader.fault("an outcome is listed twice")
    return EnumDescriptor(outcomes)


def _read_digits(reader: Reader) -> DigitDescriptor:
    base, signed, unit = reader.integer(2), reader.integer(1), reader.text(MAX_TEXT_BYTES)
    precision, digits = reader.integer(4, signed=True), reader.integer(2)
    if base < 2 or signed > 1 or digits < 1:
        raise reader.fault(f"digits of base {base}, sign flag {signed}, count {digits}")
    return DigitDescriptor(digits, base, bool(signed), unit, precision)


def _read_attestation(reader: Reader, named: bool) -> Attestation:
    """Either layout; the signatures are not verified yet, nor is the convention known."""
    event_id = reader.text(MAX_TEXT_BYTES) if named else None
    pubkey = reader.take(32)
    count = reader.integer(2)
    if not 1 <= count <= MAX_NONCES:
        raise reader.fault(f"{count} signatures, 1 to {MAX_NONCES} allowed")
    signatures = tuple(reader.take(64).hex() for _ in range(count))
    if (found := reader.integer(2)) != count:
        raise reader.fault(f"{found} outcomes for {count} signatures")
    outcomes = tuple(reader.text(MAX_TEXT_BYTES) for _ in range(count))
    reader.end()
    return Attestation(event_id, Pubkey(pubkey.hex()), signatures, outcomes)


def _signatures_verify(attestation: Attestation, convention: Convention) -> bool:
    pubkey = bytes.fromhex(attestation.pubkey)
    for signature, outcome in zip(attestation.signatures, attestation.outcomes, strict=True):
        message = outcome_message(outcome) if convention is Convention.TAGGED else sha256(outcome.encode()).digest()
        if not schnorr.verify(pubkey, message, bytes.fromhex(signature)):
            return False
    return True
