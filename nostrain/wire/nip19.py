"""Public keys as people see them: `npub1…` (NIP-19). Secret keys have no text form here."""

from __future__ import annotations

from typing import Final

from coincurve import PublicKeyXOnly

# pynostr's plain bech32 module: pynostr.key would drag in `requests` and `cryptography`.
from pynostr import bech32

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.units import Pubkey, is_hex32

_PREFIX: Final = "npub"
_LENGTH: Final = 63


def npub(pubkey: Pubkey) -> str:
    """The NIP-19 spelling of `pubkey`. Raises LocalProtocolError when it is not 64 lowercase hex digits."""
    if not is_hex32(pubkey):
        raise LocalProtocolError(f"npub: {pubkey!r} is not 64 lowercase hex digits")
    words = bech32.convertbits(bytes.fromhex(pubkey), 8, 5)
    return str(bech32.bech32_encode(_PREFIX, words, bech32.Encoding.BECH32))


def parse_npub_untrusted(text: str) -> Pubkey:
    """The key that `text` (`npub1…`, 63 characters) spells. Raises RemoteProtocolError."""
    if len(text) != _LENGTH:
        raise RemoteProtocolError("npub", f"{len(text)} characters, not {_LENGTH}")
    prefix, words, encoding = bech32.bech32_decode(text)
    if encoding is not bech32.Encoding.BECH32:
        raise RemoteProtocolError("npub", "not bech32, or its checksum is wrong")
    if prefix != _PREFIX:
        raise RemoteProtocolError("npub", f"starts with {prefix}1, not {_PREFIX}1")
    data = bech32.convertbits(words, 5, 8, False)
    if data is None or len(data) != 32:
        raise RemoteProtocolError("npub", "not 32 bytes")
    try:
        PublicKeyXOnly(bytes(data))
    except ValueError as error:
        raise RemoteProtocolError("npub", "the key is not on the curve") from error
    return Pubkey(bytes(data).hex())
