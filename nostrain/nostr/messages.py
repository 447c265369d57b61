"""What a client and a relay say to each other (NIP-01, NIP-42), bytes ⇄ values. No I/O.

An `EVENT`'s event is kept as raw JSON here: `wire.event.parse_event_untrusted` verifies it, once we know that we want it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import msgspec

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event, Filter
from nostrain.units import EventId, UnixTime, is_hex32
from nostrain.wire.event import MAX_EVENT_BYTES, MAX_TIME, filter_object, short_reason

MAX_MESSAGE_BYTES: Final = 2 * MAX_EVENT_BYTES
"""Largest WebSocket message that we take from a relay: an event, its frame, and the slack of a wordier JSON encoder."""

MAX_TEXT: Final = 1_024
"""Longest human-readable reason, notice or AUTH challenge that we keep, in characters."""

MAX_SUBSCRIPTION: Final = 64
"""Longest subscription id (NIP-01)."""

AUTH_KIND: Final = 22242
"""NIP-42 client authentication."""


class EventMessage(msgspec.Struct, frozen=True):
    """`["EVENT", subscription, event]`; the event is unparsed."""

    subscription: str
    raw: bytes


class EoseMessage(msgspec.Struct, frozen=True):
    """`["EOSE", subscription]`: the stored events are through."""

    subscription: str


class OkMessage(msgspec.Struct, frozen=True):
    """`["OK", event id, accepted, reason]`. `event_id` None: a refusal that does not say of what (nostr-relay writes an empty string)."""

    event_id: EventId | None
    accepted: bool
    reason: str


class ClosedMessage(msgspec.Struct, frozen=True):
    """`["CLOSED", subscription, reason]`: the relay ended a subscription."""

    subscription: str
    reason: str


class NoticeMessage(msgspec.Struct, frozen=True):
    """`["NOTICE", text]`, for people."""

    text: str


class AuthMessage(msgspec.Struct, frozen=True):
    """`["AUTH", challenge]` (NIP-42)."""

    challenge: str


RelayMessage = EventMessage | EoseMessage | OkMessage | ClosedMessage | NoticeMessage | AuthMessage


class Head(msgspec.Struct, frozen=True):
    """What an event claims to be, before it is verified: good for looking up what we have, and for paging one relay."""

    id: EventId
    created_at: UnixTime


class Answer(Enum):
    """What an `OK` or a `CLOSED` asks of us."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    ERROR = "error"
    AUTHENTICATE = "authenticate"
    REFUSED = "refused"


_FRAMES: Final = msgspec.json.Decoder(list[msgspec.Raw])
_TEXTS: Final = msgspec.json.Decoder(str)
_FLAGS: Final = msgspec.json.Decoder(bool)
_HEADS: Final = msgspec.json.Decoder(Head)
_SIZES: Final = {"EVENT": 3, "EOSE": 2, "OK": 4, "CLOSED": 3, "NOTICE": 2, "AUTH": 2}


def parse_relay_message_untrusted(data: bytes | str) -> RelayMessage:
    """One message of a relay. Members after those that the NIPs define are ignored. Raises RemoteProtocolError."""
    if len(data) > MAX_MESSAGE_BYTES:
        raise RemoteProtocolError("relay message", f"{len(data)} bytes, at most {MAX_MESSAGE_BYTES} are allowed")
    try:
        members = _FRAMES.decode(data)
        label = _TEXTS.decode(members[0]) if members else ""
        if len(members) < _SIZES.get(label, 0):
            raise RemoteProtocolError("relay message", f"{label} with {len(members) - 1} members")
        return _build(label, members)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("relay message", short_reason(error)) from error


def _build(label: str, members: list[msgspec.Raw]) -> RelayMessage:
    match label:
        case "EVENT":
            return EventMessage(_subscription(members[1]), bytes(members[2]))
        case "EOSE":
            return EoseMessage(_subscription(members[1]))
        case "OK":
            event_id, accepted = _TEXTS.decode(members[1]), _FLAGS.decode(members[2])
            if not is_hex32(event_id) and (event_id or accepted):
                raise RemoteProtocolError("relay message", "OK for something that is not an event id")
            return OkMessage(EventId(event_id) if event_id else None, accepted, _text(members[3]))
        case "CLOSED":
            return ClosedMessage(_subscription(members[1]), _text(members[2]))
        case "NOTICE":
            return NoticeMessage(_text(members[1]))
        case "AUTH":
            return AuthMessage(_challenge(members[1]))
        case _:
            raise RemoteProtocolError("relay message", f"unknown label {label[:20]!a}")


def _text(raw: msgspec.Raw) -> str:
    """Text for people and logs: cut, and printable on one line."""
    return "".join(c if c.isprintable() else " " for c in _TEXTS.decode(raw)[:MAX_TEXT])


def _subscription(raw: msgspec.Raw) -> str:
    name = _TEXTS.decode(raw)
    if not 1 <= len(name) <= MAX_SUBSCRIPTION:
        raise RemoteProtocolError("relay message", f"a subscription id of {len(name)} characters")
    return name


def _challenge(raw: msgspec.Raw) -> str:
    challenge = _TEXTS.decode(raw)
    if not 1 <= len(challenge) <= MAX_TEXT or not challenge.isprintable():
        raise RemoteProtocolError("relay message", "an AUTH challenge that is empty, too long or unprintable")
    return challenge


def parse_head_untrusted(raw: bytes) -> Head:
    """The claimed id and time of an unverified event. Raises RemoteProtocolError."""
    try:
        head = _HEADS.decode(raw)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("event", short_reason(error)) from error
    if not is_hex32(head.id) or not 0 <= head.created_at <= MAX_TIME:
        raise RemoteProtocolError("event", "id or created_at is out of range")
    return head


def judge(accepted: bool, reason: str, *, ephemeral: bool = False) -> Answer:
    """What to do about an `OK` (or, with accepted=False, a `CLOSED`), by its NIP-01 prefix.

    RETRY is about the relay as a whole, ERROR perhaps about this event alone.
    A refusal without a known prefix is final: the relay gave us no reason to hope. `mute` is what a relay says of an ephemeral event that
    nobody was listening for: all that could be done with it was done. strfry writes `ERROR: ` before the prefix of a `CLOSED`.
    """
    prefix = reason.removeprefix("ERROR: ").partition(":")[0]
    if accepted or prefix == "duplicate" or (ephemeral and prefix == "mute"):
        return Answer.ACCEPTED
    if prefix in ("rate-limited", "error"):
        return Answer.ERROR if prefix == "error" else Answer.RETRY
    return Answer.AUTHENTICATE if prefix == "auth-required" else Answer.REFUSED


def encode_message(*members: Any) -> str:
    """A client message as the text of one WebSocket frame."""
    return msgspec.json.encode(members).decode()


def event_message(event: Event) -> str:
    """`["EVENT", event]`: publish."""
    return encode_message("EVENT", event)


def req_message(subscription: str, filters: Sequence[Filter]) -> str:
    """`["REQ", subscription, filter, …]`: ask, and stay subscribed."""
    return encode_message("REQ", subscription, *map(filter_object, filters))


def close_message(subscription: str) -> str:
    """`["CLOSE", subscription]`."""
    return encode_message("CLOSE", subscription)


def auth_message(event: Event) -> str:
    """`["AUTH", event]`: the signed answer to a challenge (NIP-42)."""
    return encode_message("AUTH", event)
