"""What a relay says of itself (NIP-11): the limits that its operator set, as far as they are ours to keep. No I/O.

A document is a claim of one relay about itself. Whatever it says costs us at most that relay: nothing here can make others do without an event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event, Filter
from nostrain.units import UnixTime
from nostrain.wire.event import encode_event, short_reason

MAX_DOCUMENT_BYTES: Final = 65_536
LEAST_LIMIT: Final = 20
"""Events that we ask for at least: with smaller pages, events of one second cannot be paged past. A relay cuts its answer anyway."""

LEAST_SUBSCRIPTIONS: Final = 2
"""One that lives, one that pages."""

EVENT_FRAME: Final = len('["EVENT",]')
QUERY_FRAME: Final = len('["REQ","stock",{"ids":[],"limit":1000}]')
ID_BYTES: Final = 67
_NUMBERS: Final = (
    "max_message_length",
    "max_subscriptions",
    "max_limit",
    "max_content_length",
    "max_event_tags",
    "min_pow_difficulty",
    "created_at_lower_limit",
    "created_at_upper_limit",
)
_FLAGS: Final = ("auth_required", "payment_required", "restricted_writes")
_DOCUMENTS: Final = msgspec.json.Decoder(dict[str, Any])


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The members of `limitation`; None: the relay has not said.

    Messages are measured in bytes, contents in characters, dates in seconds before and after now.
    """

    max_message_length: int | None = None
    max_subscriptions: int | None = None
    max_limit: int | None = None
    max_content_length: int | None = None
    max_event_tags: int | None = None
    min_pow_difficulty: int | None = None
    created_at_lower_limit: int | None = None
    created_at_upper_limit: int | None = None
    auth_required: bool = False
    payment_required: bool = False
    restricted_writes: bool = False

    @property
    def subscriptions(self) -> int | None:
        """How many may be open at a time."""
        return None if self.max_subscriptions is None else max(self.max_subscriptions, LEAST_SUBSCRIPTIONS)

    def narrowed(self, wanted: Filter) -> Filter:
        """The query with no higher limit than the relay answers. One without a limit stays without."""
        if self.max_limit is None or wanted.limit is None:
            return wanted
        return msgspec.structs.replace(wanted, limit=min(wanted.limit, max(self.max_limit, LEAST_LIMIT)))

    def ids(self, most: int) -> int:
        """How many events may be asked for by id at a time, at most `most`: the answer must not be cut, and the question must fit."""
        room = most if self.max_message_length is None else (self.max_message_length - QUERY_FRAME) // ID_BYTES
        return max(1, min(most, room, most if self.max_limit is None else self.max_limit))

    def refuses(self, event: Event, now: UnixTime) -> str | None:
        """Why the relay will never take `event`, None if nothing is known against it. `now` by the relay's clock."""
        size = EVENT_FRAME + len(encode_event(event))
        if self.max_message_length is not None and size > self.max_message_length:
            return f"a message of {size} bytes, it takes {self.max_message_length}"
        if self.max_content_length is not None and len(event.content) > self.max_content_length:
            return f"{len(event.content)} characters of content, it takes {self.max_content_length}"
        if self.max_event_tags is not None and len(event.tags) > self.max_event_tags:
            return f"{len(event.tags)} tags, it takes {self.max_event_tags}"
        if self.created_at_lower_limit is not None and event.created_at < now - self.created_at_lower_limit:
            return f"dated {now - event.created_at} s ago, it takes {self.created_at_lower_limit}"
        return None

    def early(self, event: Event, now: UnixTime) -> bool:
        """Whether the relay takes `event` later, but not yet."""
        return self.created_at_upper_limit is not None and event.created_at > now + self.created_at_upper_limit

    def hindrances(self) -> tuple[str, ...]:
        """What stands between us and writing there, for its operator's and our own to settle."""
        found = [name for name in ("payment_required", "restricted_writes") if getattr(self, name)]
        if self.min_pow_difficulty:
            found.append(f"min_pow_difficulty = {self.min_pow_difficulty}, and we do not mine")
        return tuple(found)


NO_LIMITS: Final = Limits()


def parse_information_untrusted(data: bytes) -> Limits:
    """The limits in a relay information document. A member of another type or sign than NIP-11's is left out: many documents have some.

    Raises RemoteProtocolError: no JSON object, or one that is too large.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise RemoteProtocolError("relay information", f"{len(data)} bytes, at most {MAX_DOCUMENT_BYTES} are read")
    try:
        limitation = _DOCUMENTS.decode(data).get("limitation")
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("relay information", short_reason(error)) from error
    members: Mapping[str, Any] = limitation if isinstance(limitation, dict) else {}
    found: dict[str, Any] = {name: value for name in _NUMBERS if type(value := members.get(name)) is int and value > 0}
    return Limits(**found, **{name: members.get(name) is True for name in _FLAGS})
