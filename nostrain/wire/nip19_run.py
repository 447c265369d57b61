"""A run as people hand it on (NIP-19): `nevent1…` of its manifest, `naddr1…` of its pointer, or the bare id."""

from __future__ import annotations

from typing import Final

from pynostr import bech32

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.discovery import RunAddress
from nostrain.protocol.limits import MAX_RELAYS
from nostrain.units import EventId, Pubkey, is_hex32
from nostrain.wire import kinds
from nostrain.wire.relay_url import relay_urls_untrusted

MAX_CHARACTERS: Final = 5_000
"""NIP-19's own bound."""

MAX_FIELD: Final = 255
"""Bytes: a field's length is one byte."""

_SPECIAL, _RELAY, _AUTHOR, _KIND = range(4)


def nevent(address: RunAddress) -> str:
    """The NIP-19 spelling of a run's manifest; a relay whose URL is longer than a field may be is left out."""
    relays = [url.encode() for url in address.relays]
    fields = [(_SPECIAL, bytes.fromhex(address.run)), *((_RELAY, url) for url in relays if len(url) <= MAX_FIELD)]
    if address.coordinator is not None:
        fields.append((_AUTHOR, bytes.fromhex(address.coordinator)))
    fields.append((_KIND, kinds.MANIFEST.to_bytes(4, "big")))
    data = b"".join(bytes((kind, len(value))) + value for kind, value in fields)
    return str(bech32.bech32_encode("nevent", bech32.convertbits(data, 8, 5), bech32.Encoding.BECH32))


def parse_run_untrusted(text: str) -> RunAddress:
    """The run that `text` names: 64 hex digits, or an nevent or naddr of ours. Raises RemoteProtocolError."""
    if is_hex32(text):
        return RunAddress(EventId(text))
    if len(text) > MAX_CHARACTERS:
        raise RemoteProtocolError("run", f"{len(text)} characters")
    prefix, words, encoding = bech32.bech32_decode(text)
    if encoding is not bech32.Encoding.BECH32 or prefix not in ("nevent", "naddr"):
        raise RemoteProtocolError("run", "neither 64 hex digits nor an nevent or naddr; or its checksum is wrong")
    data = bech32.convertbits(words, 5, 8, False)
    fields = _fields(bytes(data)) if data is not None else {}
    special, authors, found = fields.get(_SPECIAL, []), fields.get(_AUTHOR, []), fields.get(_KIND, [])
    run = "" if not special else special[0].hex() if prefix == "nevent" else special[0].decode("ascii", "replace")
    wanted = kinds.MANIFEST if prefix == "nevent" else kinds.POINTER
    if not is_hex32(run) or any(kind != wanted.to_bytes(4, "big") for kind in found) or any(len(author) != 32 for author in authors):
        raise RemoteProtocolError("run", f"this {prefix} names something else than a run")
    relays = relay_urls_untrusted((url.decode("ascii", "replace") for url in fields.get(_RELAY, [])), MAX_RELAYS)
    return RunAddress(EventId(run), Pubkey(authors[0].hex()) if authors else None, relays)


def _fields(data: bytes) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    while data:
        if len(data) < 2 or len(data) < 2 + data[1]:
            raise RemoteProtocolError("run", "its last field is cut")
        found.setdefault(data[0], []).append(data[2 : 2 + data[1]])
        data = data[2 + data[1] :]
    return found
