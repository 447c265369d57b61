"""Private messages between two parties (NIP-59 gift wraps)."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import trio

from nostrain.protocol.event import Event
from nostrain.units import Pubkey


class Mail(Protocol):
    """Carries complete signed events inside gift wraps; the receiver deduplicates by the inner id, so sending twice is harmless."""

    async def send(self, event: Event, recipient: Pubkey) -> None:
        """Wrap and deliver `event`. Raises Unavailable when it could not be handed to a relay."""
        ...

    def inbox(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[Event]]:
        """Verified inner events addressed to us, oldest first where the relays know them."""
        ...
