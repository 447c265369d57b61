"""Who asks: a NIP-98 event (kind 27235) in a header of its own, because `Authorization` carries the L402 token."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from nostrain.errors import RemoteProtocolError
from nostrain.ports.signer import Signer
from nostrain.protocol.event import Draft
from nostrain.units import Pubkey, UnixTime
from nostrain.wire.event import encode_event, parse_event_untrusted

HEADER: Final = "X-Nostr-Authorization"
KIND: Final = 27235
MAX_HEADER: Final = 4 * 1024

SKEW_S: Final = 60
"""How far the event's time may be from ours, as NIP-98 suggests."""


def make_identity(signer: Signer, method: str, url: str, now: UnixTime) -> str:
    """The header's value that proves our key for one request: `method` on exactly `url`, within a minute of `now`."""
    event = signer.sign(Draft(created_at=now, kind=KIND, tags=(("u", url), ("method", method)), content=""))
    return "Nostr " + base64.b64encode(encode_event(event)).decode()


def read_identity_untrusted(header: str, method: str, url: str, now: UnixTime) -> Pubkey:
    """Whose key signed for this request. Raises RemoteProtocolError with the first reason why it does not count."""
    if len(header) > MAX_HEADER:
        raise RemoteProtocolError("identity", f"longer than {MAX_HEADER} characters")
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "nostr" or not token:
        raise RemoteProtocolError("identity", "not of the form 'Nostr <base64>'")
    try:
        data = base64.b64decode(token, validate=True)
    except (binascii.Error, ValueError):
        raise RemoteProtocolError("identity", "the event is not base64") from None
    event = parse_event_untrusted(data)
    if event.kind != KIND:
        reason = f"kind {event.kind} is not {KIND}"
    elif not -SKEW_S <= event.created_at - now <= SKEW_S:
        reason = f"made {abs(event.created_at - now)} s away from our clock"
    elif event.tag("u") != url:
        reason = "for another URL"
    elif event.tag("method") != method:
        reason = "for another method"
    else:
        return event.pubkey
    raise RemoteProtocolError("identity", reason, whose=event.pubkey)
