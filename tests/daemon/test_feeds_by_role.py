"""What a node listens to at its Lightning node: only what its roles need, which is what its rune allows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import pytest
import trio
import trio.testing

from nostrain.core.rows import NodeState
from nostrain.daemon import feeds
from nostrain.daemon.income_feed import IncomeFeed
from nostrain.daemon.runtime import Runtime
from nostrain.testing.lightning import FakeLedger, FakeLightning
from tests.daemon.world import make_identity, make_ports


@pytest.mark.parametrize(
    ("role", "expected"),
    [("coordinator", {"node", "income"}), ("worker", {"node", "holds"}), ("validator", {"node", "income"})],
)
async def test_who_listens_to_what(
    role: Literal["coordinator", "worker", "validator"], expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: set[str] = set()

    async def node(*_: object) -> None:
        began.add("node")

    async def holds(*_: object) -> None:
        began.add("holds")

    async def income(*_: object) -> None:
        began.add("income")

    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(feeds, "node_feed", node)
    monkeypatch.setattr(feeds, "hold_feed", holds)
    monkeypatch.setattr(feeds, "relay_feed", nothing)
    monkeypatch.setattr(IncomeFeed, "run", income)
    identity = msgspec.structs.replace(make_identity(tmp_path), roles=(role,))
    ports = make_ports(tmp_path, lightning=FakeLightning(FakeLedger(lambda: 1), "node"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feeds.run_feeds, Runtime(ports, identity, state=NodeState()))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert began == expected
