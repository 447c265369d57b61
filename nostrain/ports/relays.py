"""Public events through Nostr relays."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from nostrain.protocol.event import Event, Filter


class Relays(Protocol):
    """A set of relays behind which everyone meets. Delivery is at least once, in no order."""

    async def publish(self, event: Event) -> None:
        """Send `event` until a quorum of the relays has answered OK (or `duplicate`).

        Raises:
            Unavailable: no quorum could be reached for now; sending the same event again is safe.
            RemoteProtocolError: so many relays refused the event for good that a quorum is out of reach (`invalid:`, `blocked:`, `pow:` …).
        """
        ...

    def subscribe(self, filters: Sequence[Filter]) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Event]]:
        """Open a live subscription: stored events first, then new ones, deduplicated by id, verified, matching a filter.

        Survives reconnections (asks again from its cursor with overlap). Closing the context ends it.
        """
        ...

    def meet(self, urls: Sequence[str]) -> None:
        """Read and publish on these relays as well: others meet there, and a stranger may have named them.

        What is no address, or too many, is left out; where connections may lead is for the adapter to guard. A quorum never depends on them.
        """
        ...
