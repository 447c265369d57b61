"""A real client and a simnet's node that is killed, hangs and comes back: what the feed tells, and a daemon on the wrong network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import trio
from click.testing import CliRunner

from nostrain.core.identity import Identity
from nostrain.core.inputs import Block, Input, NodeChanged
from nostrain.core.rows import NodeState
from nostrain.daemon import node_feed as feed
from nostrain.daemon.main import main
from nostrain.daemon.runtime import Runtime
from nostrain.errors import EX_CONFIG
from nostrain.units import Pubkey
from tests.paid.conftest import FUNDS, PATIENCE_S, SimnetProcess
from tests.paid.holding import HELD, hold


class Told:
    """Stands in for a runtime: keeps what it is told."""

    def __init__(self) -> None:
        self.state = NodeState()
        self.identity = Identity(Pubkey("aa" * 32), "n", (), "")
        self.inputs: list[Input] = []
        self._changed = trio.Event()

    async def put(self, input_: Input) -> None:
        self.inputs.append(input_)
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, condition: Callable[[NodeChanged], bool]) -> NodeChanged:
        with trio.fail_after(PATIENCE_S):
            while True:
                last = [input_ for input_ in self.inputs if isinstance(input_, NodeChanged)][-1:]
                if last and condition(last[0]):
                    return last[0]
                await self._changed.wait()


async def test_a_node_that_is_killed_or_hangs_is_told_of_and_so_is_its_return(
    simnet: SimnetProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "POLL_S", 0.02)
    monkeypatch.setattr(feed, "ANSWER_S", 0.5)
    told = Told()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.node_feed, cast("Runtime", told), simnet.lightning("coordinator"))
        first = await told.until(lambda one: one.state == "ready")
        assert len(first.peers) == len(FUNDS) - 1
        assert {(peer.slots_out, peer.slots_in, peer.connected) for peer in first.peers} == {(30, 30, True)}
        assert isinstance(told.inputs[0], Block)
        for away, back in (("crash", "start"), ("stall", "resume")):
            await simnet.control("fault", kind=away, node="coordinator")
            assert (await told.until(lambda one: one.state == "down")).reason
            await simnet.control("fault", kind=back, node="coordinator")
            assert await told.until(lambda one: one.state == "ready") == first
        await simnet.control("fault", kind="crash", node="worker-1")
        gone = await told.until(lambda one: any(not peer.connected for peer in one.peers))
        assert len(gone.peers) == len(first.peers)
        await simnet.control("fault", kind="start", node="worker-1")
        assert await told.until(lambda one: all(peer.connected for peer in one.peers)) == first
        await hold(simnet)
        held = await told.until(lambda one: any(peer.slots_out == 29 for peer in one.peers))
        assert sum(peer.spendable_msat for peer in first.peers) - sum(peer.spendable_msat for peer in held.peers) == HELD
        nursery.cancel_scope.cancel()


def test_a_daemon_whose_node_is_on_another_network_does_not_start(simnet: SimnetProcess, tmp_path: Path) -> None:
    path = tmp_path / "nostraind.toml"
    text = f'name = "n"\ndata_dir = "{tmp_path}/data"\nroles = ["worker"]\nrelays = ["ws://127.0.0.1:9"]\n'
    path.write_text(f'{text}[lightning]\nsocket = "{simnet.socket("worker-1")}"\nnetwork = "bitcoin"\n')
    result = CliRunner().invoke(main, ["--config", str(path)])
    assert result.exit_code == EX_CONFIG
    assert "lightning.network" in result.output
    assert "is on 'regtest'" in result.output
