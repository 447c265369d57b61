"""What outlives a connection: the pool's settings, and where every subscription stands on every relay."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

import msgspec

from nostrain.nostr.cursor import Query
from nostrain.nostr.limits import NO_LIMITS, Limits
from nostrain.nostr.standing import Standing
from nostrain.nostr.subscription import Subscription
from nostrain.ports.signer import Signer
from nostrain.protocol.event import Filter
from nostrain.units import UnixTime

log = logging.getLogger("nostrain.nostr")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a pool treats its relays. Times in seconds; `quorum` None means half of the relays, or more."""

    quorum: int | None = None
    overlap_s: int = 600
    renewal_overlap_s: int = 24 * 3600
    page_size: int = 500
    queue_size: int = 2_048
    dedupe_size: int = 65_536
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 10.0
    check_interval_s: float = 5.0
    probe_interval_s: float = 60.0
    renewal_interval_s: float = 3600.0
    eose_timeout_s: float = 30.0
    eose_timeout_last_s: float = 600.0
    send_timeout_s: float = 10.0
    ok_timeout_s: float = 10.0
    ok_timeout_last_s: float = 60.0
    publish_timeout_s: float = 30.0
    backoff_first_s: float = 0.5
    backoff_last_s: float = 60.0


class Watch:
    """One filter of one subscription on one relay, through all its connections."""

    def __init__(self, subscription: Subscription, index: int, settings: Settings) -> None:
        self.subscription, self.index = subscription, index
        self.name = f"{subscription.number}.{index}"
        sizes = {"overlap_s": settings.overlap_s, "page_size": settings.page_size, "renewal_overlap_s": settings.renewal_overlap_s}
        self.query = Query(self.wanted, **sizes)

    @property
    def wanted(self) -> Filter:
        """The filter as the subscriber gave it."""
        return self.subscription.filters[self.index]


class Member:
    """What the connections to one relay share with each other and with the pool."""

    def __init__(
        self,
        url: str,
        settings: Settings,
        signer: Signer | None,
        now: Callable[[], UnixTime],
        counts: Counter[str],
        spare: Callable[[], bool],
    ) -> None:
        self.url, self.settings, self.signer, self.now, self.counts = url, settings, signer, now, counts
        self.spare = spare
        """Whether another relay is connected, so that this one can be done without."""
        self.watches: dict[str, Watch] = {}
        self.standing = Standing()
        self.patience_s = settings.eose_timeout_s
        """How long a query may bring nothing: doubled each time that it was too short, so that a slow relay is waited for in the end."""
        self.skew_s: int | None = None
        """How far the relay's clock is ahead of ours, None as long as it has not said."""

        self.limits: Limits = NO_LIMITS
        """What the relay says of itself (NIP-11), as long as it has not: nothing."""
        self._told: set[str] = set()

    def relay_time(self) -> UnixTime:
        """The time by the relay's clock, or by ours."""
        return UnixTime(self.now() + (self.skew_s or 0))

    def count(self, reason: str, detail: str) -> None:
        """Count every misdeed; log the first ones, then ever fewer, so that nobody can fill the disk."""
        self.counts[reason] += 1
        count = self.counts[reason]
        if count <= 16 or count.bit_count() == 1:
            log.warning("relay %s: %s (%d so far): %s", self.url, reason, count, detail)

    def once(self, topic: str, detail: str) -> None:
        """Say something about the relay, the first time."""
        if topic not in self._told:
            self._told.add(topic)
            log.warning("relay %s: %s", self.url, detail)
