"""Points and the bench; who owes an answer; whether the computer slept."""

from __future__ import annotations

from nostrain.nostr.standing import FIRST_BENCH_S, FORGED, LAST_BENCH_S, LIMIT, Standing
from nostrain.nostr.vigil import JUMP_S, Vigil
from nostrain.units import UnixTime


def test_points_drain_with_time() -> None:
    standing = Standing()
    assert not any(standing.blame(FORGED, 100.0) for _ in range(LIMIT // FORGED - 1))
    assert standing.points(100.0) == LIMIT - FORGED
    assert standing.points(100.0 + LIMIT) == 0
    assert not standing.blame(FORGED, 105.0)
    assert standing.blame(FORGED, 105.0)


def test_each_bench_is_longer_than_the_last_up_to_a_bound() -> None:
    standing = Standing()
    assert [standing.bench(0.0), standing.bench(0.0)] == [FIRST_BENCH_S, 2 * FIRST_BENCH_S]
    assert standing.benched_s(100.0) == 2 * FIRST_BENCH_S - 100
    assert standing.benched_s(5_000.0) == 0
    assert [standing.bench(0.0) for _ in range(10)][-1] == LAST_BENCH_S


def test_an_answer_under_way_is_waited_for() -> None:
    vigil = Vigil(0.0, UnixTime(0))
    vigil.asked("1.0", 0.0)
    vigil.heard(20.0, "1.0")
    vigil.heard(40.0, "2.0")
    assert not vigil.overdue(50.0, 30.0)
    assert vigil.overdue(50.1, 30.0)
    vigil.answered("1.0")
    assert not vigil.overdue(1_000.0, 30.0)


def test_silence_counts_only_while_nothing_is_owed() -> None:
    vigil = Vigil(0.0, UnixTime(0))
    vigil.asked("1.0", 0.0)
    assert not vigil.silent(100.0, 60.0)
    vigil.answered("1.0")
    assert vigil.silent(100.0, 60.0)
    vigil.heard(100.0)
    assert not vigil.silent(160.0, 60.0)


def test_a_wall_clock_that_ran_ahead_or_back_is_noticed_once() -> None:
    vigil = Vigil(0.0, UnixTime(1_000))
    assert vigil.slept(5.0, UnixTime(1_005 + JUMP_S)) == 0
    assert vigil.slept(10.0, UnixTime(9_000 + JUMP_S)) == 7_990
    assert vigil.slept(15.0, UnixTime(9_005 + JUMP_S)) == 0
    assert vigil.slept(20.0, UnixTime(1_000)) < -JUMP_S
