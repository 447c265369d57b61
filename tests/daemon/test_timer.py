"""Ticks: one at every deadline, none missed and none in a hurry, whatever the wall clock does."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from nostrain.core.inputs import Tick
from nostrain.core.rows import Chain, NodeState
from nostrain.daemon.clock import SystemClock
from nostrain.testing.clock import EPOCH
from nostrain.units import UnixTime
from tests.daemon.world import Toy, Watched, command, make_ports, until


class WallClock:
    """Follows trio's clock, off by what a test sets; sleepers look once a second, as the live one does every few."""

    def __init__(self) -> None:
        self.offset = 0

    def now(self) -> UnixTime:
        return UnixTime(EPOCH + self.offset + int(trio.current_time() - self._origin))

    def start(self) -> WallClock:
        self._origin = trio.current_time()
        return self

    async def sleep_until(self, when: UnixTime) -> None:
        await trio.lowlevel.checkpoint()
        while self.now() < when:
            await trio.sleep(0.5)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    return Toy(monkeypatch)


def ticks(toy: Toy) -> list[int]:
    """When ticks were taken, in seconds after EPOCH."""
    return [at - EPOCH for at, input_ in toy.taken if isinstance(input_, Tick)]


async def test_a_tick_at_every_deadline_and_no_other(tmp_path: Path, toy: Toy, autojump_clock: MockClock) -> None:
    toy.deadlines = lambda _state: [EPOCH - 5, EPOCH + 10, EPOCH + 11, EPOCH + 400]
    runtime = Watched(make_ports(tmp_path, clock=WallClock().start()), tmp_path)
    with trio.move_on_after(1000):
        await runtime.run()
    assert ticks(toy) == [10, 11, 400]


async def test_a_deadline_that_comes_with_a_change_is_kept(tmp_path: Path, toy: Toy, autojump_clock: MockClock) -> None:
    """The change arrives while the timer waits for a far later deadline."""

    def deadlines(state: NodeState) -> list[int]:
        height = state.rows.get("height")
        return [EPOCH + 900] + ([EPOCH + height.height] if isinstance(height, Chain) else [])

    toy.deadlines = deadlines
    runtime = Watched(make_ports(tmp_path, clock=WallClock().start()), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await trio.sleep(20)
        await runtime.put(command(50))
        await until(lambda: len(ticks(toy)) == 2, step_s=1)
        nursery.cancel_scope.cancel()
    assert ticks(toy) == [50, 900]


async def test_a_jump_forward_ticks_at_once(tmp_path: Path, toy: Toy, autojump_clock: MockClock) -> None:
    """As after a suspend: every deadline that passed is told, once."""
    clock = WallClock().start()
    toy.deadlines = lambda _state: [EPOCH + 100, EPOCH + 200, EPOCH + 10_000]
    runtime = Watched(make_ports(tmp_path, clock=clock), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await trio.sleep(10)
        clock.offset = 5000
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    assert len(ticks(toy)) == 2
    assert all(5010 <= at <= 5012 for at in ticks(toy))


async def test_a_clock_set_back_does_not_swallow_the_deadlines_before_where_it_was(
    tmp_path: Path, toy: Toy, autojump_clock: MockClock
) -> None:
    """The daemon started an hour fast; then the clock is corrected, and a round opens whose deadlines lie before that hour."""
    clock = WallClock().start()
    clock.offset = 3600
    toy.deadlines = lambda state: [EPOCH + 60, EPOCH + 120] if "height" in state.rows else []
    runtime = Watched(make_ports(tmp_path, clock=clock), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await trio.sleep(5)
        clock.offset = 0
        await runtime.put(command(1))
        await until(lambda: len(ticks(toy)) == 2, step_s=1)
        nursery.cancel_scope.cancel()
    assert ticks(toy) == [60, 120]


async def test_a_clock_set_back_while_waiting_ticks_again_and_never_spins(tmp_path: Path, toy: Toy, autojump_clock: MockClock) -> None:
    clock = WallClock().start()
    toy.deadlines = lambda _state: [EPOCH + 10, EPOCH + 100]
    runtime = Watched(make_ports(tmp_path, clock=clock), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await trio.sleep(50)
        clock.offset = -50
        await trio.sleep(200)
        nursery.cancel_scope.cancel()
    assert len(ticks(toy)) <= 3
    assert ticks(toy)[0] == 10
    assert ticks(toy)[-1] == 100


async def test_the_live_clock_comes_back_from_a_moment_that_is_past() -> None:
    clock = SystemClock()
    before = clock.now()
    await clock.sleep_until(UnixTime(before - 10))
    await clock.sleep_until(before)
    assert clock.now() >= before
