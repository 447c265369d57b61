"""Blossom authorization tokens (BUD-11): a signed event of kind 24242 in the `Authorization` header."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from typing import Final

from nostrain.errors import RemoteProtocolError
from nostrain.ports.signer import Signer
from nostrain.protocol.event import Draft, Event
from nostrain.units import Digest, UnixTime
from nostrain.wire.event import encode_event, parse_event_untrusted

KIND: Final = 24242

IDENTITY: Final = "X-Nostr-Authorization"
"""Carries the token instead of `Authorization` when that carries a payment (L402)."""

MAX_HEADER: Final = 12 * 1024
"""Characters of an `Authorization` header that are looked at."""

_SKEW_S: Final = 60
"""How far ahead of ours another clock may be: BUD-11 wants `created_at` in the past, honest clocks differ."""

_BACKDATED_S: Final = 10
_LIFETIME_S: Final = 600


def parse_header_untrusted(header: str) -> Event:
    """The verified event of an `Authorization: Nostr <base64>` header, in either base64 alphabet, padded or not.

    Raises RemoteProtocolError.
    """
    if len(header) > MAX_HEADER:
        raise RemoteProtocolError("authorization", f"longer than {MAX_HEADER} characters")
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "nostr" or not token:
        raise RemoteProtocolError("authorization", "not of the form 'Nostr <base64>'")
    standard = token.strip().translate(str.maketrans("-_", "+/")).rstrip("=")
    try:
        data = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RemoteProtocolError("authorization", "the token is not base64") from error
    return parse_event_untrusted(data)


def check_token(event: Event, *, verb: str, digest: Digest | None, hosts: Collection[str], now: UnixTime) -> None:
    """Check that `event` authorizes `verb` on the blob `digest` (None where no blob is meant) at the server that is called any of `hosts`, now.

    Raises RemoteProtocolError with the first reason why it does not.
    """
    if event.kind != KIND:
        raise _refused(event, f"kind {event.kind} is not {KIND}")
    if event.created_at > now + _SKEW_S:
        raise _refused(event, "it was made in the future")
    if _expiration(event) <= now:
        raise _refused(event, "it has expired")
    if verb not in _values(event, "t"):
        raise _refused(event, f"it does not allow '{verb}'")
    servers = _values(event, "server")
    if servers and not set(servers) & set(hosts):
        raise _refused(event, f"it is for other servers than {' or '.join(sorted(hosts))}")
    if digest is not None and digest not in _values(event, "x"):
        raise _refused(event, f"it is not for the blob {digest}")


def digests(event: Event) -> frozenset[str]:
    """The blobs that the token names."""
    return frozenset(_values(event, "x"))


def make_header(signer: Signer, *, verb: str, digest: Digest, host: str, now: UnixTime) -> str:
    """The header that authorizes `verb` on `digest` at `host`, for ten minutes.

    The event is filled with spaces to a multiple of three bytes and contains nothing that the two base64 alphabets write differently,
    so that servers which want padding, those which refuse it, and both alphabets read the same token.
    """
    draft = Draft(
        created_at=UnixTime(now - _BACKDATED_S),
        kind=KIND,
        tags=(("t", verb), ("x", digest), ("server", host), ("expiration", str(now + _LIFETIME_S))),
        content=f"{verb.capitalize()} blob",
    )
    data = encode_event(signer.sign(draft))
    return "Nostr " + base64.urlsafe_b64encode(data + b" " * (-len(data) % 3)).decode()


def _values(event: Event, name: str) -> list[str]:
    return [tag[1] for tag in event.tags if len(tag) > 1 and tag[0] == name]


def _expiration(event: Event) -> int:
    text = event.tag("expiration") or ""
    if not (text.isascii() and text.isdecimal() and len(text) <= 16):
        raise _refused(event, "it has no expiration in unix seconds")
    return int(text)


def _refused(event: Event, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError("authorization", reason, whose=event.pubkey)
