"""The world of scripted servers, which leaves nothing half-done behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from .scripted import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with trio.open_nursery() as nursery:
        world = World(tmp_path, nursery)
        yield world
        for client in world.clients:
            async with client:
                pass
        nursery.cancel_scope.cancel()
    assert world.leftovers() == []
    world.store.close()
