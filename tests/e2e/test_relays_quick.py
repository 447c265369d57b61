"""The same as `test_relays.py` in seconds: real relay processes that are killed, the daemon's machines, runtime and pool; no training, no daemons."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from nostrain.devnet.observer import Observer
from nostrain.devnet.processes import Processes, start_relay
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.nostr.watch import Settings
from nostrain.testing.engine import StubEngine
from nostrain.testing.participant import Participant
from nostrain.testing.simulation import Plan, Simulation
from tests.e2e.asking import WANTED, tells_everything

ROUNDS = 2
PEOPLE = (*(f"worker-{index}" for index in range(2)), *(f"validator-{index}" for index in range(2)))
NAMES = ("forgets", "forgets-too", "remembers")


class Network(Simulation):
    """The simulation's participants, in real time, over pools of real relays."""

    def __init__(self, plan: Plan, folder: Path, urls: list[str]) -> None:
        super().__init__(plan, folder)
        self.urls = urls
        self.observer = Observer(lambda _line: None, {})

    @asynccontextmanager
    async def relays_of(self, one: Participant) -> AsyncIterator[RelayPool]:
        settings = Settings(backoff_first_s=0.05, backoff_last_s=0.2)
        rng = random.Random(f"{self.plan.seed}/{one.name}")
        async with open_pool(self.urls, settings=settings, rng=rng, now=self.clock.now, archive=one.folder / "published.sqlite") as pool:
            yield pool

    async def watch(self) -> None:
        async with open_pool(self.urls, settings=Settings(backoff_last_s=0.2)) as pool, pool.subscribe([WANTED]) as events:
            async for event in events:
                self.observer.take(event)


@pytest.mark.timeout(60)
async def test_all_relays_are_killed_in_mid_round_and_one_of_them_for_good_in_the_next(tmp_path: Path, seed: int) -> None:
    """`kill -9` of all three while the workers commit; two of them are empty when they are back. The third dies in the next round, and stays away."""
    processes = Processes()
    engines = {name: lambda _stub: StubEngine() for name in ("coordinator", *PEOPLE)}
    plan = Plan(seed=seed % 1000, rounds=ROUNDS, workers=2, validators=2, paid=False, engines=engines, on_disk=frozenset())
    try:
        urls = [await start_relay(processes, tmp_path, name, lasting=name == "remembers") for name in NAMES]
        network = Network(plan, tmp_path, urls)

        async def reached(round_: int, milestone: str) -> None:
            while milestone not in (network.observer.rounds[round_].seen if round_ in network.observer.rounds else ()):
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.watch)
            async with network.running():
                await reached(1, "announced")
                for name in NAMES:
                    await processes.kill(name)
                for name, url in zip(NAMES, urls, strict=True):
                    await start_relay(processes, tmp_path, name, port=int(url.rpartition(":")[2]), lasting=name == "remembers")
                await reached(2, "announced")
                await processes.kill("remembers")
                await reached(ROUNDS, "closed")
                assert network.observer.run is not None
                for url in urls[:2]:
                    await tells_everything(url, network.observer.run)
            nursery.cancel_scope.cancel()
    finally:
        await processes.stop_all()
    for number in range(1, ROUNDS + 1):
        result = network.observer.rounds[number].round.result
        assert result is not None
        assert len(result[1].accepted) == 2
