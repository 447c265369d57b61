"""Macaroons in libmacaroons' version 2 binary form. What the caveats of ours say stands in `crypto.caveats`.

Sources: "Macaroons: Cookies with Contextual Caveats" (Birgisson et al., 2014); libmacaroons' `doc/format.txt` and pymacaroons, whose
bytes we write; the L402 identifier of 66 bytes (version ‖ payment hash ‖ token id). The chain is the one that is deployed, with the root
key hashed first, not the simplified one that L402's own page prints.

    02 ‖ [01 len location] ‖ 02 len identifier ‖ 00 ‖ (02 len caveat ‖ 00)… ‖ 00 ‖ 06 32 signature      lengths are LEB128
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final, NamedTuple

from nostrain.errors import LocalProtocolError, RemoteProtocolError

MAX_BYTES: Final = 4096
MAX_CAVEATS: Final = 32
IDENTIFIER_BYTES: Final = 66

_VERSION: Final = 2
_END, _LOCATION, _IDENTIFIER, _VERIFICATION, _SIGNATURE = 0, 1, 2, 4, 6
_KEY_GENERATOR: Final = b"macaroons-key-generator"
_IDENTIFIER_VERSION: Final = b"\x00\x00"


@dataclass(frozen=True, slots=True)
class Macaroon:
    """A token: `signature` is the last link of the HMAC chain over identifier and caveats. `location` None leaves that field out."""

    location: str | None
    identifier: bytes
    caveats: tuple[bytes, ...]
    signature: bytes


def mint(root_key: bytes, identifier: bytes, location: str | None = None, caveats: Sequence[bytes] = ()) -> Macaroon:
    """A fresh macaroon. Raises LocalProtocolError when it would be larger than readers take."""
    key = hmac.digest(_KEY_GENERATOR, root_key, "sha256")
    macaroon = Macaroon(location, identifier, (), hmac.digest(key, identifier, "sha256"))
    for caveat in caveats:
        macaroon = add_caveat(macaroon, caveat)
    return macaroon


def add_caveat(macaroon: Macaroon, caveat: bytes) -> Macaroon:
    """The macaroon with one more condition. Whoever holds it can do so, and nobody can undo it.

    Raises LocalProtocolError when it would be larger than readers take.
    """
    signature = hmac.digest(macaroon.signature, caveat, "sha256")
    after = replace(macaroon, caveats=(*macaroon.caveats, caveat), signature=signature)
    if len(after.caveats) > MAX_CAVEATS or len(encode(after)) > MAX_BYTES:
        raise LocalProtocolError(f"a macaroon of {len(after.caveats)} caveats and {len(encode(after))} bytes is larger than readers take")
    return after


def is_minted_with(macaroon: Macaroon, root_key: bytes) -> bool:
    """Whether the chain starts at `root_key`: identifier and caveats are as its minter and its holders wrote them. In constant time."""
    chain = hmac.digest(hmac.digest(_KEY_GENERATOR, root_key, "sha256"), macaroon.identifier, "sha256")
    for caveat in macaroon.caveats:
        chain = hmac.digest(chain, caveat, "sha256")
    return hmac.compare_digest(chain, macaroon.signature)


def encode(macaroon: Macaroon) -> bytes:
    """The version 2 binary form."""
    parts = [bytes([_VERSION])]
    if macaroon.location is not None:
        parts.append(_field(_LOCATION, macaroon.location.encode()))
    parts += [_field(_IDENTIFIER, macaroon.identifier), bytes([_END])]
    for caveat in macaroon.caveats:
        parts += [_field(_IDENTIFIER, caveat), bytes([_END])]
    return b"".join([*parts, bytes([_END]), _field(_SIGNATURE, macaroon.signature)])


def decode_untrusted(data: bytes) -> Macaroon:
    """The macaroon of its version 2 binary form; encoding it again gives `data`. Third-party caveats are not for us and refused.

    Nothing is verified: see `is_minted_with`. Raises RemoteProtocolError.
    """
    if len(data) > MAX_BYTES:
        raise _fault(f"{len(data)} bytes, at most {MAX_BYTES} are taken")
    reader = _Reader(data)
    if reader.byte() != _VERSION:
        raise _fault("not of version 2")
    location = None
    if reader.peek() == _LOCATION:
        try:
            location = reader.field(_LOCATION).decode()
        except UnicodeDecodeError:
            raise _fault("its location is not UTF-8") from None
    identifier = reader.field(_IDENTIFIER)
    reader.end_of_section()
    caveats: list[bytes] = []
    while reader.peek() != _END:
        if reader.peek() == _LOCATION:
            raise _fault("a third-party caveat, or one with a location")
        caveats.append(reader.field(_IDENTIFIER))
        if reader.peek() == _VERIFICATION:
            raise _fault("a third-party caveat")
        reader.end_of_section()
        if len(caveats) > MAX_CAVEATS:
            raise _fault(f"more than {MAX_CAVEATS} caveats")
    reader.end_of_section()
    signature = reader.field(_SIGNATURE)
    if len(signature) != 32 or reader.left():
        raise _fault("its signature is not 32 bytes at the very end")
    return Macaroon(location, identifier, tuple(caveats), signature)


class Identifier(NamedTuple):
    """What an L402 identifier binds: the payment that buys the token, and the token's own 32 random bytes."""

    payment_hash: bytes
    token: bytes


def encode_identifier(identifier: Identifier) -> bytes:
    """66 bytes: version 0 as u16, payment hash, token id. Raises LocalProtocolError when one of them is not 32 bytes."""
    if len(identifier.payment_hash) != 32 or len(identifier.token) != 32:
        raise LocalProtocolError("L402 identifier: payment hash and token id are 32 bytes each")
    return _IDENTIFIER_VERSION + identifier.payment_hash + identifier.token


def parse_identifier_untrusted(data: bytes) -> Identifier:
    """The parts of a 66-byte identifier. Raises RemoteProtocolError."""
    if len(data) != IDENTIFIER_BYTES or not data.startswith(_IDENTIFIER_VERSION):
        raise _fault(f"its identifier is not {IDENTIFIER_BYTES} bytes of version 0")
    return Identifier(data[2:34], data[34:])


class _Reader:
    """Reads the binary form front to back. Raises RemoteProtocolError."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def left(self) -> int:
        return len(self._data) - self._at

    def peek(self) -> int:
        if not self.left():
            raise _fault("it ends too early")
        return self._data[self._at]

    def byte(self) -> int:
        value = self.peek()
        self._at += 1
        return value

    def end_of_section(self) -> None:
        if self.byte() != _END:
            raise _fault("a field where a section must end")

    def field(self, kind: int) -> bytes:
        if (found := self.byte()) != kind:
            raise _fault(f"field {found} where field {kind} is expected")
        size = self._length()
        if size > self.left():
            raise _fault("it ends too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def _length(self) -> int:
        """LEB128 in its shortest form; two bytes reach past MAX_BYTES."""
        low = self.byte()
        if low < 0x80:
            return low
        high = self.byte()
        if not 0 < high < 0x80:
            raise _fault("a length that is too large or not in its shortest form")
        return (low & 0x7F) | high << 7


def _field(kind: int, data: bytes) -> bytes:
    length = bytearray()
    rest = len(data)
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([kind, *length, rest]) + data


def payment_hash_of(preimage: bytes) -> bytes:
    """SHA-256, as Lightning binds a preimage to its payment."""
    return sha256(preimage).digest()


def _fault(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError("macaroon", reason)
