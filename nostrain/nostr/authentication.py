"""NIP-42: challenges answered on demand, a bounded number of times, for the URL that was dialled and no other. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from nostrain.nostr import messages
from nostrain.ports.signer import Signer
from nostrain.protocol.event import Draft
from nostrain.units import EventId, UnixTime

MAX_CHALLENGES: Final = 8


class Authentication:
    """One connection's. `say` queues a message to the relay."""

    def __init__(self, url: str, signer: Signer | None, say: Callable[[str], None]) -> None:
        self._url, self._signer, self._say = url, signer, say
        self._challenges = 0
        self._id: EventId | None = None
        self._settled = trio.Event()
        self.accepted = False

    def challenged(self, challenge: str, now: UnixTime) -> None:
        """Answer, if there is a signer."""
        self._challenges += 1
        if self._signer is None or self._challenges > MAX_CHALLENGES:
            return
        tags = (("relay", self._url), ("challenge", challenge))
        event = self._signer.sign(Draft(now, messages.AUTH_KIND, tags, ""))
        self._id = event.id
        self._say(messages.auth_message(event))

    def answered(self, ok: messages.OkMessage) -> bool:
        """Whether this OK is for our answer, which settles it."""
        if self._id is None or ok.event_id != self._id:
            return False
        self.accepted = ok.accepted
        self._settled.set()
        return True

    async def settled(self, timeout_s: float) -> bool:
        """Whether the relay knows who we are; waits for a challenge under way. False without a signer, when refused, or after the timeout."""
        if self._signer is not None:
            with trio.move_on_after(timeout_s):
                await self._settled.wait()
        return self.accepted
