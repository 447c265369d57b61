"""Addresses of relays as strangers write them (NIP-65 lists, manifests, NIP-19 hints): which ones we would dial, in one spelling."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.limits import MAX_URL

MAX_LABEL: Final = 63
"""Characters between two dots of a host's name (RFC 1035)."""


def relay_url_untrusted(text: str) -> str:
    """The one spelling of a relay's URL: ws or wss, lowercase host, no default port, no slash alone. Raises RemoteProtocolError.

    Users, passwords, queries and fragments are refused: what is dialled should be what a person reads. Where the host leads is judged when it is dialled.
    """
    if len(text) > MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise RemoteProtocolError("relay address", "too long, or has characters that no URL has")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise RemoteProtocolError("relay address", str(error)) from error
    if parts.scheme not in ("ws", "wss") or not host:
        raise RemoteProtocolError("relay address", "neither ws:// nor wss://")
    if ":" not in host and not all(1 <= len(label) <= MAX_LABEL for label in host.split(".")):
        raise RemoteProtocolError("relay address", "a host that no name server could know")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise RemoteProtocolError("relay address", "has a user, a query or a fragment")
    named = f"[{host}]" if ":" in host else host
    shown = named if port in (None, 80 if parts.scheme == "ws" else 443) else f"{named}:{port}"
    return f"{parts.scheme}://{shown}{parts.path.rstrip('/')}"


def relay_urls_untrusted(texts: Iterable[str], most: int) -> tuple[str, ...]:
    """The first `most` of `texts` that are relay addresses, each once; the others are left out."""
    found: dict[str, None] = {}
    for text in texts:
        if len(found) == most:
            break
        try:
            found[relay_url_untrusted(text)] = None
        except RemoteProtocolError:
            continue
    return tuple(found)
