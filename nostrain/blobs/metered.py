"""A response that was paid for: what of it went out is counted, and a peer that hangs up ends it, so that the rest is not counted as sent."""

from __future__ import annotations

import trio
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from nostrain.ports.tolls import Passage


class Metered:
    """Sends `response` and finishes `passage` with the bytes that the connection took."""

    def __init__(self, response: Response, passage: Passage) -> None:
        self._response, self._passage = response, passage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        moved = 0

        async def counted(message: Message) -> None:
            nonlocal moved
            await send(message)
            if message["type"] == "http.response.body":
                moved += len(message.get("body", b""))

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await self._response(scope, receive, counted)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await self._passage.finish(moved)
