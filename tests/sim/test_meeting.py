"""A run whose participants configured different relays: they meet on those that an address and the manifest name."""

from __future__ import annotations

import random
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from trio.testing import MockClock

from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.testing.participant import Participant
from nostrain.testing.simulation import Plan, Simulation
from tests.sim.bad_relays import RELAYS, Part, World
from tests.sim.world import check_no_message_broke

RUNS, OTHER = "ws://relay-0", "ws://relay-2"
HOMES = {"coordinator": RUNS, "worker": "ws://relay-1", "validator": OTHER}


class Apart(Simulation):
    """Everybody at home on another relay, over real pools."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        super().__init__(plan, folder)
        self.world = World(plan.seed, turns=(Part.GOOD,) * RELAYS)

    @asynccontextmanager
    async def relays_of(self, one: Participant) -> AsyncIterator[RelayPool]:
        connect = self.world.connect(one.name)
        rng = random.Random(one.name)
        async with open_pool([HOMES[one.role]], rng=rng, now=self.clock.now, connect=connect, strangers=connect) as pool:
            pool.meet([RUNS])  # as the nevent in `join.run` says
            yield pool


def test_participants_with_relays_of_their_own_meet_on_those_of_the_run() -> None:
    async def main(where: Path) -> None:
        sim = Apart(Plan(rounds=2, workers=2, validators=3, paid=False, relays=(RUNS, OTHER)), where)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sim.world.run)
            async with sim.running():
                everyone = sim.participants.values()
                assert await sim.until(lambda: all(one.run is not None and one.run.finished for one in everyone), limit_s=4_000)
                await trio.sleep(60)
            nursery.cancel_scope.cancel()
        check_no_message_broke(sim)
        for relay in (RUNS, OTHER):
            assert all(sim.world.relays[relay].holds(one.pubkey) for one in everyone)
        at_home = {one.role for one in everyone if sim.world.relays[HOMES["worker"]].holds(one.pubkey)}
        assert at_home == {"worker"}

    with tempfile.TemporaryDirectory() as made:
        trio.run(main, Path(made), clock=MockClock(autojump_threshold=0))
