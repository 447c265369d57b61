"""The daemon's first look at its Lightning node."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from nostrain.config.schema import DaemonConfig
from nostrain.daemon.clock import SystemClock
from nostrain.daemon.money import Money
from nostrain.errors import ConfigError
from nostrain.keys.store import RootSecret
from nostrain.lightning.rpc import ClnRpc
from tests.lightning.scripted_node import ScriptedNode


def money(folder: Path, network: str) -> Money:
    table = {"name": "n", "data_dir": str(folder), "roles": ["worker"], "lightning": {"socket": str(folder / "rpc"), "network": network}}
    return Money(msgspec.convert(table, DaemonConfig), RootSecret(bytes(32)), SystemClock(), ClnRpc(folder / "rpc"))


async def test_a_node_on_another_network_is_the_operators_to_mend(tmp_path: Path) -> None:
    node = ScriptedNode(tmp_path / "rpc")
    async with trio.open_nursery() as nursery:
        await nursery.start(node.serve)
        with pytest.raises(ConfigError, match="is on 'regtest'") as refused:
            await money(tmp_path, "bitcoin").check()
        await money(tmp_path, "regtest").check()
        nursery.cancel_scope.cancel()
    assert refused.value.key == "lightning.network"


async def test_a_node_that_is_not_there_is_waited_for_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await money(tmp_path, "regtest").check()
    assert "lightningd does not answer" in caplog.text
