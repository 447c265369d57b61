"""A Nostr event (NIP-01) that has been verified, and the filters that select events."""

from __future__ import annotations

import msgspec

from nostrain.units import EventId, Pubkey, UnixTime

Tags = tuple[tuple[str, ...], ...]


class Event(msgspec.Struct, frozen=True):
    """A signed NIP-01 event whose id and signature were checked: only `wire.event.parse_event_untrusted` and a signer make one."""

    id: EventId
    pubkey: Pubkey
    created_at: UnixTime
    kind: int
    tags: Tags
    content: str
    sig: str

    def tag(self, name: str) -> str | None:
        """Value of the first tag called `name`, or None."""
        return next((tag[1] for tag in self.tags if len(tag) > 1 and tag[0] == name), None)


class Draft(msgspec.Struct, frozen=True):
    """An event before its id and signature. `created_at` is fixed by whoever decided to speak, so that a retry is the same event."""

    created_at: UnixTime
    kind: int
    tags: Tags
    content: str


class Filter(msgspec.Struct, frozen=True, omit_defaults=True):
    """A NIP-01 subscription filter. `tags` maps a single letter to the accepted values (`#d`, `#e`, …)."""

    ids: tuple[EventId, ...] = ()
    authors: tuple[Pubkey, ...] = ()
    kinds: tuple[int, ...] = ()
    tags: tuple[tuple[str, tuple[str, ...]], ...] = ()
    since: UnixTime | None = None
    until: UnixTime | None = None
    limit: int | None = None
