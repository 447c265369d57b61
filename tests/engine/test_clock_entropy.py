"""The virtual clock and the seeded entropy of simulations."""

from __future__ import annotations

import trio
import trio.testing

from nostrain.testing.clock import EPOCH, VirtualClock
from nostrain.testing.entropy import SeededEntropy
from nostrain.units import UnixTime


async def test_sleeping_until_a_time_takes_no_time_of_ours_and_ends_on_it(autojump_clock: trio.testing.MockClock) -> None:
    clock = VirtualClock()
    assert clock.now() == EPOCH
    for wait in (1, 86_400, 0, 7):
        when = UnixTime(clock.now() + wait)
        await clock.sleep_until(when)
        assert clock.now() == when


async def test_a_time_gone_by_is_still_a_checkpoint(autojump_clock: trio.testing.MockClock) -> None:
    clock = VirtualClock()
    with trio.testing.assert_checkpoints():
        await clock.sleep_until(UnixTime(0))


async def test_sleeping_can_be_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    clock = VirtualClock()
    with trio.move_on_after(10) as scope:
        await clock.sleep_until(UnixTime(EPOCH + 100))
    assert scope.cancelled_caught
    assert clock.now() == EPOCH + 10


async def test_participants_may_be_skewed(autojump_clock: trio.testing.MockClock) -> None:
    right, late = VirtualClock(UnixTime(1000)), VirtualClock(UnixTime(1000), skew_s=-30)
    await right.sleep_until(UnixTime(1100))
    assert late.now() == 1070


def test_draws_repeat_for_a_seed_and_differ_between_labels_and_draws() -> None:
    first = SeededEntropy(5, "worker-1")
    drawn = [first.draw(size) for size in (32, 1, 100, 32)]
    again = SeededEntropy(5, "worker-1")
    assert [again.draw(size) for size in (32, 1, 100, 32)] == drawn
    assert [len(part) for part in drawn] == [32, 1, 100, 32]
    assert drawn[0] != drawn[3]
    assert SeededEntropy(5, "worker-2").draw(32) != drawn[0]
    assert SeededEntropy(6, "worker-1").draw(32) != drawn[0]
    assert SeededEntropy(-1).draw(0) == b""
