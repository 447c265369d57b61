"""Nostr events and filters as bytes (NIP-01).

The id is the SHA-256 of the UTF-8 JSON array `[0, pubkey, created_at, kind, tags, content]` without whitespace, with exactly the seven
escapes that NIP-01 lists. About the other control characters (U+0000 … U+001F) the letter of NIP-01 ("verbatim") and the deployed
implementations (`\\u00xx`) disagree, so the same event would have two ids: we neither write nor accept them.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

import msgspec
from coincurve import PublicKeyXOnly

from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.event import Draft, Event, Filter
from nostrain.units import EventId, Pubkey, is_hex32

MAX_EVENT_BYTES: Final = 65_536
MAX_TAGS: Final = 2_000
MAX_KIND: Final = 65_535
MAX_TIME: Final = 2**53 - 1
"""Largest `created_at`: the largest integer that every JSON implementation carries exactly."""

_ENVELOPE_BYTES: Final = 320  # id, sig and member names, which an encoded event has and its serialization has not
_DISPUTED_CONTROLS: Final = re.compile("[\x00-\x07\x0b\x0e-\x1f]")
_HEX64: Final = re.compile(r"[0-9a-f]{128}")
_EVENTS: Final = msgspec.json.Decoder(Event)
_ENCODER: Final = msgspec.json.Encoder()


class ForgedEvent(RemoteProtocolError):
    """The id is not the event's hash, or the signature is not its author's: whoever hands it out as genuine has not looked, or lies."""


class _Reason(Exception):
    """Why an event or filter is refused, before it is known what to call it."""


class _Forged(_Reason):
    """The same, for `ForgedEvent`."""


def _check_body(created_at: int, kind: int, tags: tuple[tuple[str, ...], ...], content: str) -> None:
    if not 0 <= created_at <= MAX_TIME:
        raise _Reason("created_at is out of range")
    if not 0 <= kind <= MAX_KIND:
        raise _Reason(f"kind is not between 0 and {MAX_KIND}")
    if len(tags) > MAX_TAGS:
        raise _Reason(f"{len(tags)} tags, at most {MAX_TAGS} are allowed")
    if not all(tags):
        raise _Reason("a tag is empty")
    if _DISPUTED_CONTROLS.search(content) or any(_DISPUTED_CONTROLS.search(value) for tag in tags for value in tag):
        raise _Reason("a control character that NIP-01 gives no escape for")


def _event_hash(pubkey: str, created_at: int, kind: int, tags: tuple[tuple[str, ...], ...], content: str) -> bytes:
    """The 32-byte id. msgspec escapes as NIP-01 does once the disputed control characters are excluded."""
    _check_body(created_at, kind, tags, content)
    try:
        serialized = _ENCODER.encode([0, pubkey, created_at, kind, tags, content])
    except UnicodeEncodeError as error:
        raise _Reason("a lone surrogate, which UTF-8 cannot carry") from error
    if len(serialized) + _ENVELOPE_BYTES > MAX_EVENT_BYTES:
        raise _Reason(f"more than {MAX_EVENT_BYTES} bytes")
    return hashlib.sha256(serialized).digest()


def event_id(pubkey: Pubkey, draft: Draft) -> EventId:
    """The NIP-01 id that `draft` has when `pubkey` signs it.

    Raises LocalProtocolError: the draft breaks a bound that `parse_event_untrusted` enforces on others.
    """
    if not is_hex32(pubkey):
        raise LocalProtocolError("event: the author is not a 64-digit lowercase hex key")
    try:
        return EventId(_event_hash(pubkey, draft.created_at, draft.kind, draft.tags, draft.content).hex())
    except _Reason as reason:
        raise LocalProtocolError(f"event of kind {draft.kind}: {reason}") from reason


def encode_event(event: Event) -> bytes:
    """The event as compact UTF-8 JSON, the seven NIP-01 members only."""
    return _ENCODER.encode(event)


def parse_event_untrusted(data: bytes | str | dict[str, Any]) -> Event:
    """A verified event: strict types, bounds, the id recomputed, the BIP-340 signature checked.

    `data` is JSON text or an already decoded object. Unknown members are dropped (nothing signs them); repeated ones are refused.

    Raises RemoteProtocolError, naming the author and the id where those could be read; ForgedEvent is one.
    """
    try:
        event = _decode(data)
    except _Reason as reason:
        raise RemoteProtocolError("event", str(reason)) from reason
    try:
        _verify(event)
    except _Reason as reason:
        what = f"event {event.id}" if is_hex32(event.id) else "event"
        whose = event.pubkey if is_hex32(event.pubkey) else ""
        kind = ForgedEvent if isinstance(reason, _Forged) else RemoteProtocolError
        raise kind(what, str(reason), whose=whose) from reason
    return event


def _decode(data: bytes | str | dict[str, Any]) -> Event:
    try:
        if isinstance(data, dict):
            return msgspec.convert(data, Event)
        raw = data.encode() if isinstance(data, str) else data
        if len(raw) > MAX_EVENT_BYTES:
            raise _Reason(f"{len(raw)} bytes, at most {MAX_EVENT_BYTES} are allowed")
        event = _EVENTS.decode(raw)
        json.loads(raw, object_pairs_hook=refuse_repeated)  # msgspec silently takes the last of repeated members
        return event
    except msgspec.ValidationError as error:
        raise _Reason(short_reason(error)) from error
    except (ValueError, RecursionError) as error:
        raise _Reason(f"not JSON: {short_reason(error)}") from error


def short_reason(error: Exception) -> str:
    """One short ASCII line: the message may quote the sender's text."""
    return ascii(str(error))[1:-1][:160]


def refuse_repeated(pairs: list[tuple[str, Any]]) -> None:
    """For `json.loads(object_pairs_hook=…)`: raises ValueError when an object gives a member twice, which readers resolve differently."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a member is given twice")


def _verify(event: Event) -> None:
    if not is_hex32(event.id):
        raise _Reason("id is not 64 lowercase hex digits")
    if not is_hex32(event.pubkey):
        raise _Reason("pubkey is not 64 lowercase hex digits")
    if not _HEX64.fullmatch(event.sig):
        raise _Reason("sig is not 128 lowercase hex digits")
    digest = _event_hash(event.pubkey, event.created_at, event.kind, event.tags, event.content)
    if digest.hex() != event.id:
        raise _Forged("id is not the hash of the event")
    try:
        key = PublicKeyXOnly(bytes.fromhex(event.pubkey))
    except ValueError as error:
        raise _Reason("pubkey is not on the curve") from error
    if not key.verify(bytes.fromhex(event.sig), digest):
        raise _Forged("the signature is not valid")


def filter_object(wanted: Filter) -> dict[str, Any]:
    """The filter as a NIP-01 JSON object; an empty field is left out, so it does not constrain."""
    fields: dict[str, Any] = {name: getattr(wanted, name) for name in ("ids", "authors", "kinds") if getattr(wanted, name)}
    fields.update({f"#{name}": values for name, values in wanted.tags})
    bounds = {"since": wanted.since, "until": wanted.until, "limit": wanted.limit}
    return fields | {name: bound for name, bound in bounds.items() if bound is not None}


def matches(wanted: Filter, event: Event) -> bool:
    """Whether a relay should return `event` for `wanted` (NIP-01); `limit` bounds a query, so it plays no part here."""
    return (
        (not wanted.ids or event.id in wanted.ids)
        and (not wanted.authors or event.pubkey in wanted.authors)
        and (not wanted.kinds or event.kind in wanted.kinds)
        and (wanted.since is None or event.created_at >= wanted.since)
        and (wanted.until is None or event.created_at <= wanted.until)
        and all(any(len(tag) > 1 and tag[0] == name and tag[1] in values for tag in event.tags) for name, values in wanted.tags)
    )
