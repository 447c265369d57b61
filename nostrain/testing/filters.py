"""A relay's side of NIP-01 filters: what the relays of tests make of the filters that our nodes send."""

from __future__ import annotations

from typing import Any

import msgspec

from nostrain.protocol.event import Filter
from nostrain.units import EventId, Pubkey, UnixTime, is_hex32
from nostrain.wire.event import MAX_KIND, MAX_TIME


class _Members(msgspec.Struct, forbid_unknown_fields=True):
    ids: tuple[EventId, ...] | None = None
    authors: tuple[Pubkey, ...] | None = None
    kinds: tuple[int, ...] | None = None
    since: UnixTime | None = None
    until: UnixTime | None = None
    limit: int | None = None


def parse_filter(members: dict[str, Any]) -> Filter:
    """The filter of a decoded JSON object.

    Raises ValueError for what a relay may refuse or misread: members that not every relay knows, empty lists, which select nothing, values that
    cannot be, tags that are not indexed.
    """
    by_tag = msgspec.convert({name[1:]: members[name] for name in members if name.startswith("#")}, dict[str, tuple[str, ...]])
    rest = msgspec.convert({name: members[name] for name in members if not name.startswith("#")}, _Members)
    if () in (rest.ids, rest.authors, rest.kinds, *by_tag.values()):
        raise ValueError("an empty list selects nothing")
    if not all(is_hex32(value) for value in (*(rest.ids or ()), *(rest.authors or ()))):
        raise ValueError("ids and authors are 64 lowercase hex digits")
    if not all(0 <= kind <= MAX_KIND for kind in rest.kinds or ()):
        raise ValueError(f"kind is not between 0 and {MAX_KIND}")
    if not all(len(name) == 1 and name.isascii() and name.isalpha() for name in by_tag):
        raise ValueError("only single-letter tags are indexed")
    if not all(0 <= bound <= MAX_TIME for bound in (rest.since, rest.until, rest.limit) if bound is not None):
        raise ValueError("since, until or limit is out of range")
    return Filter(
        ids=rest.ids or (),
        authors=rest.authors or (),
        kinds=rest.kinds or (),
        tags=tuple(by_tag.items()),
        since=rest.since,
        until=rest.until,
        limit=rest.limit,
    )
