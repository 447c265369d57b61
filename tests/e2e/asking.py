"""What one relay tells a stranger of a run."""

from __future__ import annotations

import trio

from nostrain.core.rows import Run
from nostrain.devnet.observer import Observer
from nostrain.nostr.pool import open_pool
from nostrain.protocol.event import Filter
from nostrain.wire import kinds

WANTED = Filter(kinds=kinds.PUBLIC, tags=(("t", ("nostrain",)),))
HEALED_S = 60


async def tells_everything(url: str, run: Run) -> None:
    """Return when whoever asks this relay alone can follow `run` from its manifest through every round to where it stands."""
    stranger = Observer(lambda _line: None, {})
    with trio.fail_after(HEALED_S):
        async with open_pool([url]) as pool, pool.subscribe([WANTED]) as events:
            async for event in events:
                stranger.take(event)
                if stranger.run is not None and (stranger.run.id, stranger.run.head) == (run.id, run.head):
                    return
