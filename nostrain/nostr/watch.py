"""What outlives a connection: the pool's settings, and where every subscription stands on every relay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from nostrain.nostr.cursor import Query
from nostrain.nostr.subscription import Subscription
from nostrain.ports.signer import Signer
from nostrain.protocol.event import Filter
from nostrain.units import UnixTime


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool treats its relays. Times in seconds; `quorum` None means a majority of the relays."""

    quorum: int | None = None
    overlap_s: int = 600
    page_size: int = 500
    queue_size: int = 2_048
    dedupe_size: int = 65_536
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 10.0
    send_timeout_s: float = 10.0
    ok_timeout_s: float = 10.0
    publish_timeout_s: float = 30.0
    backoff_first_s: float = 0.5
    backoff_last_s: float = 60.0


class Watch:
    """One filter of one subscription on one relay, through all its connections."""

    def __init__(self, subscription: Subscription, index: int, settings: Settings) -> None:
        self.subscription, self.index = subscription, index
        self.name = f"{subscription.number}.{index}"
        self.query = Query(self.wanted, overlap_s=settings.overlap_s, page_size=settings.page_size)

    @property
    def wanted(self) -> Filter:
        """The filter as the subscriber gave it."""
        return self.subscription.filters[self.index]


class Member(msgspec.Struct):
    """What the connections to one relay share with each other and with the pool."""

    url: str
    settings: Settings
    signer: Signer | None
    now: Callable[[], UnixTime]
    counts: Counter[str]
    watches: dict[str, Watch]
