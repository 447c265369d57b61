"""A week on bad relays: rounds of an hour, 40 participants with the real pool, five relays of which two are always down, one is slow, one lies.

Machines, runtime and pool are the daemon's; relays, blobs and training are simulated, the run is unpaid. NOSTRAIN_SIM_ALL=1 simulates all 168
rounds (about half an hour of one core); otherwise it is the first few.
"""

from __future__ import annotations

import logging
import os
import random
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from nostrain.core.pruning import KEEP_ROUNDS
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.nostr.watch import Settings
from nostrain.ports.journal import Batch
from nostrain.protocol.jobs import Job, JobResult
from nostrain.protocol.manifest import TimingSpec
from nostrain.protocol.messages import Announcement, Confirmation, Message, Result
from nostrain.testing.engine import StubEngine
from nostrain.testing.journal import MemoryJournal
from nostrain.testing.participant import Participant
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Pubkey
from nostrain.wire import kinds
from nostrain.wire.messages import read_message_untrusted
from tests.sim.bad_relays import World

WEEK = bool(os.environ.get("NOSTRAIN_SIM_ALL"))
ROUNDS = int(os.environ.get("NOSTRAIN_WEEK_ROUNDS", 168 if WEEK else 3))
WORKERS, VALIDATORS = (31, 8) if WEEK else (8, 4)
HOUR_S = 3_600
TIMING = TimingSpec(commit_s=3_300, acknowledge_s=120, reveal_s=180, verdict_s=600, attest_s=300, grace_s=30)
TRAIN_S = 3_000
SHIFT_S = 5_000
"""Relays change places about every 83 minutes: at any moment of a round, sooner or later."""

SETTINGS = Settings(dedupe_size=4_096, ping_interval_s=60, check_interval_s=20, renewal_interval_s=4 * HOUR_S)
"""The pool's own, but for a memory that a week fills, and timers that cost fewer steps of the simulation."""


WORLD_MB = 3
"""What a megabyte of events takes once it is parsed: 2.3 measured. From a quarter of the week on, when ids and SQLite's pages are full, nothing else grows."""
ROWS = 5
"""Rows that a participant's journal has at most for each participant and round that is kept: it says that much in a round."""
OTHER_ROWS = 40


class ForgetfulJournal(MemoryJournal):
    """Keeps the rows, not the audit log, which is on disk in a daemon."""

    def commit(self, batch: Batch) -> None:
        super().commit(Batch((), batch.rows, batch.entries))


class ForgetfulEngine:
    """The stub, without a list of every job."""

    def __init__(self, stub: StubEngine) -> None:
        self._stub = stub

    async def run(self, job: Job) -> JobResult:
        result = await self._stub.run(job)
        self._stub.ran.clear()
        return result


class Week(Simulation):
    """The network over real pools."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        super().__init__(plan, folder)
        self.world = World(plan.seed, SHIFT_S)
        self.pools: dict[str, RelayPool] = {}
        for one in self.participants.values():
            one.memory = ForgetfulJournal()

    @asynccontextmanager
    async def relays_of(self, one: Participant) -> AsyncIterator[RelayPool]:
        async with open_pool(
            list(self.world.relays),
            settings=SETTINGS,
            rng=random.Random(f"{self.plan.seed}/{one.name}"),
            now=self.clock.now,
            connect=self.world.connect(one.name),
            archive=one.folder / "published.sqlite",
        ) as pool:
            self.pools[one.name] = pool
            yield pool


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No log of every lost connection of a week."""
    logger = logging.getLogger("nostrain")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def rss_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def said(week: Week) -> list[Message]:
    """Everything that counts for the run, in order of publication."""
    wanted = (kinds.ANNOUNCEMENT, kinds.RESULT, kinds.CONFIRMATION)
    return [read_message_untrusted(event) for event, _ in week.world.events.values() if event.kind in wanted]


async def live(week: Week) -> Mapping[int, tuple[float, float, float]]:
    """Until the run is over; at the end of each round: real seconds, MB of this process, MB of what the world has to keep."""
    figures: dict[int, tuple[float, float, float]] = {}
    coordinator, started = week.participants["coordinator"], time.monotonic()
    with trio.fail_after(ROUNDS * 3 * HOUR_S):
        while (run := coordinator.run) is None or not run.finished:
            await trio.sleep(30)
            closed = run.round if run is not None else 0
            if closed not in figures:
                world = sum(len(text) for _, text in week.world.events.values()) / 1e6
                figures[closed] = time.monotonic() - started, rss_mb(), world
                if WEEK:
                    print(f"round {closed}: {figures[closed][0]:.0f} s, {figures[closed][1]:.0f} MB, world {world:.0f} MB", flush=True)
                for one in week.participants.values():
                    one.notes.clear()
        await trio.sleep(HOUR_S)
    return figures


def check_rows(week: Week) -> None:
    """Journals are bounded by the rounds that are kept, however many there were."""
    most = ROWS * len(week.participants) * (min(ROUNDS, KEEP_ROUNDS) + 1) + OTHER_ROWS
    rows = {name: len(one.memory.load()) for name, one in week.participants.items()}
    assert min(rows.values()) > most / 10, "the bound says something"
    assert max(rows.values()) <= most, (most, rows)


def check(week: Week) -> None:
    messages = said(week)
    names = {one.pubkey: name for name, one in week.participants.items()}
    results: dict[int, Result] = {m.body.round: m.body for m in messages if isinstance(m.body, Result)}
    opened: dict[int, Announcement] = {m.body.round: m.body for m in messages if isinstance(m.body, Announcement)}
    confirmed: dict[int, set[Pubkey]] = defaultdict(set)
    for message in messages:
        if isinstance(message.body, Confirmation):
            confirmed[message.body.round].add(message.author)
    assert sorted(results) == sorted(opened) == list(range(1, ROUNDS + 1))
    assert all(result.accepted for result in results.values())
    missing: dict[int, set[Pubkey]] = {}
    for number, result in results.items():
        absent = set(opened[number].workers) - {item.worker for item in result.accepted}
        missing[number] = absent | {key for key in names if key not in confirmed[number]}
    twice = {(number, names[key]) for number in range(2, ROUNDS + 1) for key in missing[number] & missing[number - 1]}
    assert not twice, sorted(twice)
    if WEEK:
        print({number: sorted(names[key] for key in absent) for number, absent in missing.items() if absent})


def test_every_round_closes_and_nobody_is_lost_for_more_than_one() -> None:
    plan = Plan(
        seed=7, rounds=ROUNDS, workers=WORKERS, validators=VALIDATORS, threshold=VALIDATORS // 2 + 1, min_workers=min(WORKERS, 20),
        paid=False, timing=TIMING, train_s=TRAIN_S, on_disk=frozenset(),
        engines={f"{role}-{index}": ForgetfulEngine for role, count in (("worker", WORKERS), ("validator", VALIDATORS)) for index in range(count)},
    )  # fmt: skip

    async def main(where: Path) -> None:
        week = Week(plan, where)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(week.world.run)
            async with week.running():
                figures = await live(week)
            nursery.cancel_scope.cancel()
        check(week)
        check_rows(week)
        if WEEK and ROUNDS > 100:
            _, then, world_then = figures[ROUNDS // 4]
            _, now, world_now = figures[ROUNDS - 1]
            assert now - then < WORLD_MB * (world_now - world_then), (then, now, world_then, world_now)

    with tempfile.TemporaryDirectory() as made:
        trio.run(main, Path(made), clock=MockClock(autojump_threshold=0))
