"""What daemons say of themselves, asked every second through a whole paid run; and the feeds that come back by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import trio
from trio.testing import MockClock

from nostrain.config.schema import DaemonConfig
from nostrain.core.inputs import Block, HoldChanged, Input, NodeChanged
from nostrain.daemon.feeds import RETRY_S, hold_feed
from nostrain.daemon.node_feed import node_feed
from nostrain.daemon.status import Node, catching_up, metrics
from nostrain.engine import EngineProcess
from nostrain.errors import Unavailable
from nostrain.ports.lightning import HoldState, HoldUpdate, Lightning, NodeFunds
from nostrain.testing.participant import Participant
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import BlockHeight, Digest, Msat
from nostrain.wire.control import CatchingUp, Status
from tests.core.actors import Node as BehindNode
from tests.core.leaps import behind, lands, root, stands
from tests.core.replicas import replica
from tests.daemon.world import Toy, Watched, make_ports, until


class IdleEngine:
    """All that status asks of an engine."""

    starts = 1


def status_of(participant: Participant) -> Status:
    config = DaemonConfig(name=participant.name, data_dir="x", roles=(participant.role,))
    node = Node(config, participant.pubkey, cast("EngineProcess", IdleEngine()), runtime=participant.runtime)
    return node.status()


async def test_every_moment_of_a_run_has_a_status(tmp_path: Path, autojump_clock: MockClock) -> None:
    seen: list[Status] = []
    async with trio.open_nursery() as nursery:
        simulation = Simulation(Plan(rounds=2, workers=2, validators=3), tmp_path)

        async def live() -> None:
            async with simulation.running():
                await trio.sleep_forever()

        nursery.start_soon(live)
        everyone = list(simulation.participants.values())
        with trio.fail_after(7200):
            while not all(one.run is not None and one.run.finished for one in everyone):
                await trio.sleep(1)
                seen += [status_of(one) for one in everyone]
        await trio.sleep(5)
        last = [status_of(one) for one in everyone]
        nursery.cancel_scope.cancel()
    phases = {status.run.phase for status in seen if status.run is not None}
    assert {"open", "validating", "attesting"} <= phases
    assert {status.submission for status in seen} >= {"training", "revealed", None}
    assert {status.duty for status in seen} >= {"announced", "evaluating", None}
    assert all(status.run is not None and status.run.phase == "finished" and status.run.round == 2 for status in last)
    assert len({status.state_id for status in last}) == 1
    assert [status.memory for status in seen if "coordinator" in status.roles] == [None] * (len(seen) // len(everyone))
    engines = [status.memory for status in last if "coordinator" not in status.roles]
    assert all(found is not None and found.has == 0 and 512 << 20 < (found.least or 0) < (found.most or 0) for found in engines)
    assert all("nostrain_round 2" in metrics(status) for status in last)
    assert all(msgspec.json.decode(msgspec.json.encode(status), type=Status) == status for status in seen + last)


def test_who_lies_behind_says_how_far_it_has_come() -> None:
    def told(node: BehindNode) -> CatchingUp | None:
        return catching_up(node.run, replica(node), node.state)

    late = behind(12)
    assert told(late) == CatchingUp(0, 12, checkpoint=12)
    assert told(lands(late, root(12))) is None
    away = stands(behind(12), 3)
    assert told(away) == CatchingUp(3, 12)
    assert told(stands(behind(12), 11)) is None, "the last round is everybody's business"


class Wobbly:
    """A Lightning node that is away at first, and whose stream of holds breaks off."""

    def __init__(self) -> None:
        self.asked = 0
        self.heights = iter([1, 1, 1, 2])

    async def funds(self) -> NodeFunds:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        if self.asked in (1, 3):
            raise Unavailable("lightningd: not now")
        return NodeFunds(BlockHeight(next(self.heights, 2)), "behind" if self.asked == 4 else None, ())

    @asynccontextmanager
    async def holds(self) -> AsyncIterator[Any]:
        self.asked += 1
        if self.asked == 1:
            raise Unavailable("lightningd: not now")
        send, receive = trio.open_memory_channel[HoldUpdate](1)
        send.send_nowait(HoldUpdate(Digest(f"{self.asked:064x}"), HoldState.ACCEPTED, Msat(5), BlockHeight(9)))
        send.close()
        yield receive
        receive.close()


DOWN, BEHIND = NodeChanged("down", "lightningd: not now"), NodeChanged("syncing", "behind")
TOLD: dict[Any, list[Input]] = {
    hold_feed: [HoldChanged(Digest(f"{number:064x}"), "accepted", Msat(5), BlockHeight(9)) for number in (2, 3)],
    node_feed: [DOWN, Block(BlockHeight(1)), NodeChanged("ready"), DOWN, BEHIND, NodeChanged("ready"), Block(BlockHeight(2))],
}
"""What did not change is not told again, and the height of a node that catches up is not told at all."""


@pytest.mark.parametrize("feed", [hold_feed, node_feed])
async def test_feeds_come_back_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feed: Any, autojump_clock: MockClock) -> None:
    toy = Toy(monkeypatch)
    runtime = Watched(make_ports(tmp_path), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        nursery.start_soon(feed, runtime, cast("Lightning", Wobbly()))
        await until(lambda: len(toy.taken) == 1 + len(TOLD[feed]), limit_s=20 * RETRY_S)
        nursery.cancel_scope.cancel()
    assert [input_ for _, input_ in toy.taken[1:]] == TOLD[feed]
