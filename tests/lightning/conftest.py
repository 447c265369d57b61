"""A scripted lightningd, and a simnet in the test's own process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.lightning.scripted_node import ScriptedNode
from tests.simnet.conftest import World, running


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[ScriptedNode]:
    node = ScriptedNode(tmp_path / "lightning-rpc")
    async with trio.open_nursery() as nursery:
        await nursery.start(node.serve)
        yield node
        nursery.cancel_scope.cancel()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path) as world:
        yield world
