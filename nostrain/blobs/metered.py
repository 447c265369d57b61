"""A response that was paid for: what of it went out is counted. Starlette ends a response whose peer has hung up, so the rest is not counted."""

from __future__ import annotations

import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nostrain.ports.tolls import Passage


class Metered:
    """Sends `response` and finishes `passage` with the bytes that the connection took."""

    def __init__(self, response: ASGIApp, passage: Passage) -> None:
        self._response, self._passage = response, passage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        moved = 0

        async def counted(message: Message) -> None:
            nonlocal moved
            size, last = len(message.get("body", b"")), not message.get("more_body", False)
            # The host reports the regular end as a disconnection too, perhaps before the sending of the last piece has returned.
            moved += size if last else 0
            await send(message)
            moved += 0 if last else size

        try:
            await self._response(scope, receive, counted)
        finally:
            with trio.CancelScope(shield=True):
                await self._passage.finish(moved)
