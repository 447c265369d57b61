"""What we say to one relay: a bounded queue, and the task that empties it at the relay's pace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from nostrain.errors import Unavailable
from nostrain.nostr.transport import Transport

MESSAGES: Final = 1_024
DEAF: Final = "it does not read what we send"


class Outgoing:
    """`say` never waits; `fail` is called with the reason when the relay does not read, or is gone."""

    def __init__(self, transport: Transport, timeout_s: float, fail: Callable[[str], None]) -> None:
        self._transport, self._timeout_s, self._fail = transport, timeout_s, fail
        self._queue, self._unsent = trio.open_memory_channel[str](MESSAGES)

    def say(self, text: str) -> None:
        """Queue one message."""
        try:
            self._queue.send_nowait(text)
        except trio.WouldBlock:
            self._fail(DEAF)

    async def run(self) -> None:
        """Send until cancelled, or until the connection is gone."""
        try:
            async for text in self._unsent:
                with trio.move_on_after(self._timeout_s) as scope:
                    await self._transport.send(text)
                if scope.cancelled_caught:
                    self._fail(DEAF)
        except Unavailable as error:
            self._fail(str(error))
