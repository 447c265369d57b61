"""The loop: commit before effect, nothing stale, nothing lost on a full disk, a restart resumes. Toy machines, virtual time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from nostrain.core.effects import Effect
from nostrain.core.inputs import Boot, Done
from nostrain.daemon import runtime as runtime_module
from nostrain.daemon.runtime import AGAIN_S, QUEUE
from nostrain.errors import LocalProtocolError, OutcomeUnknown, Unavailable
from nostrain.ports.journal import Batch
from nostrain.testing.journal import MemoryJournal
from nostrain.testing.steps import Death, SimulatedCrash, Steps, When, at_commit
from tests.daemon.world import Performer, Toy, Watched, ask, command, lists, make_ports, until, withdraws

A = ask("a")


def dying(journal: MemoryJournal, death: Death) -> MemoryJournal:
    """The journal of a process that dies with a commit."""
    return Steps([death]).over("journal", journal)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    return Toy(monkeypatch)


@pytest.fixture
def performer(monkeypatch: pytest.MonkeyPatch) -> Performer:
    return Performer(monkeypatch)


async def test_an_effect_starts_only_when_the_journal_lists_it(
    tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock
) -> None:
    toy.on[1] = lists(A, ask("b"))
    runtime = Watched(make_ports(tmp_path), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await runtime.put(command(1))
        await until(lambda: len(performer.started) == 2)
        performer.let(A, 7)
        await until(lambda: toy.got(runtime, "a") == 7)
        nursery.cancel_scope.cancel()
    assert performer.seen_in_journal == [True, True]


async def test_an_effect_whose_commit_was_lost_never_starts(
    tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock
) -> None:
    toy.on[1] = lists(A)
    memory = MemoryJournal()
    runtime = Watched(make_ports(tmp_path, journal=dying(memory, at_commit("node", 2, When.BEFORE))), tmp_path)
    await runtime.put(command(1))
    with pytest.RaisesGroup(pytest.RaisesExc(SimulatedCrash)):
        await runtime.run()
    assert performer.ran == []
    assert set(memory.load()) == {"node"}


async def test_a_restart_resumes_what_was_outstanding(tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock) -> None:
    toy.on[1] = lists(A)
    memory = MemoryJournal()
    crashing = Watched(make_ports(tmp_path, journal=dying(memory, at_commit("node", 2, When.AFTER))), tmp_path)
    await crashing.put(command(1))
    with pytest.RaisesGroup(pytest.RaisesExc(SimulatedCrash)):
        await crashing.run()
    assert performer.ran == [], "the process died between the commit and the effect"
    restarted = Watched(make_ports(tmp_path, journal=memory), tmp_path)
    performer.let(A, 3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(restarted.run)
        await until(lambda: toy.got(restarted, "a") == 3)
        nursery.cancel_scope.cancel()
    assert performer.ran == [A]


async def test_an_outcome_lost_before_its_commit_is_found_again(
    tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock
) -> None:
    toy.on[1] = lists(A)
    memory = MemoryJournal()
    performer.let(A, 4)
    crashing = Watched(make_ports(tmp_path, journal=dying(memory, at_commit("node", 3, When.BEFORE))), tmp_path)
    await crashing.put(command(1))
    with pytest.RaisesGroup(pytest.RaisesExc(SimulatedCrash)):
        await crashing.run()
    restarted = Watched(make_ports(tmp_path, journal=memory), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(restarted.run)
        await until(lambda: toy.got(restarted, "a") == 4)
        nursery.cancel_scope.cancel()
    assert performer.ran == [A, A]


async def test_a_withdrawn_effect_is_cancelled(tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock) -> None:
    toy.on = {1: lists(A), 2: withdraws(A)}
    runtime = Watched(make_ports(tmp_path), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await runtime.put(command(1))
        await until(lambda: performer.ran == [A])
        await runtime.put(command(2))
        await until(lambda: performer.cancelled == [A])
        nursery.cancel_scope.cancel()
    assert not any(isinstance(input_, Done) for _, input_ in toy.taken)


async def test_an_outcome_is_never_taken_for_another_effect_of_the_same_id(
    tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock
) -> None:
    """The old effect ends while its replacement waits in the queue before it: its outcome is nobody's."""
    other = ask("a", size=9)
    toy.on = {1: lists(A), 2: lists(other)}
    journal = MemoryJournal()
    runtime = Watched(make_ports(tmp_path, journal=journal), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await runtime.put(command(1))
        await until(lambda: performer.ran == [A])
        journal.full = True
        await runtime.put(command(3))
        await until(lambda: runtime.counters["commits_delayed"] > 0)
        await runtime.put(command(2))
        performer.let(A, 1)
        await trio.testing.wait_all_tasks_blocked()
        journal.full = False
        await until(lambda: performer.ran == [A, other])
        assert toy.got(runtime, "a") is None
        performer.let(other, 2)
        await until(lambda: toy.got(runtime, "a") == 2)
        nursery.cancel_scope.cancel()
    assert sum(isinstance(input_, Done) for _, input_ in toy.taken) == 1


async def test_an_effect_asked_for_again_as_it_ends_runs_again_after_a_pause(
    tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock
) -> None:
    toy.on[1] = lists(A)
    toy.after_done = lambda rows, _done: lists(A)(rows)
    performer.let(A)
    runtime = Watched(make_ports(tmp_path), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await runtime.put(command(1))
        await until(lambda: len(performer.started) == 4)
        nursery.cancel_scope.cancel()
    times = [at for at, _ in performer.started]
    assert [round(later - earlier, 1) for earlier, later in pairwise(times)] == [AGAIN_S] * 3


async def test_boot_comes_before_whatever_feeds_have_queued(tmp_path: Path, toy: Toy, autojump_clock: MockClock) -> None:
    runtime = Watched(make_ports(tmp_path), tmp_path)
    for number in range(3):
        await runtime.put(command(number))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await until(lambda: len(toy.taken) == 4)
        nursery.cancel_scope.cancel()
    assert isinstance(toy.taken[0][1], Boot)


async def test_a_full_disk_is_waited_for_and_nothing_starts_meanwhile(
    tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock
) -> None:
    toy.on[1] = lists(A)
    journal = MemoryJournal()
    runtime = Watched(make_ports(tmp_path, journal=journal), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await until(lambda: "node" in journal.load())
        journal.full = True
        await runtime.put(command(1))
        await trio.sleep(300)
        assert performer.ran == []
        assert "height" not in runtime.state.rows
        assert 15 < runtime.counters["commits_delayed"] < 40, "a line every quarter of a minute, not one every moment"
        journal.full = False
        await until(lambda: performer.ran == [A])
        nursery.cancel_scope.cancel()
    assert all(note.counter == "commits_delayed" and "journal" in note.text for note in runtime.notes)


class Sour(MemoryJournal):
    """Fails in one way from its second commit on."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error
        self._commits = 0

    def commit(self, batch: Batch) -> None:
        self._commits += 1
        if self._commits > 1:
            raise self._error
        super().commit(batch)


@pytest.mark.parametrize("error", [OutcomeUnknown("not synced"), LocalProtocolError("closed")])
async def test_a_journal_that_cannot_be_trusted_any_more_ends_the_process(
    tmp_path: Path, toy: Toy, performer: Performer, error: Exception, autojump_clock: MockClock
) -> None:
    toy.on[1] = lists(A)
    runtime = Watched(make_ports(tmp_path, journal=Sour(error)), tmp_path)
    await runtime.put(command(1))
    with pytest.RaisesGroup(pytest.RaisesExc(type(error))):
        await runtime.run()
    assert performer.ran == []


async def test_thousands_of_outcomes_and_inputs_do_not_block_the_loop(
    tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock
) -> None:
    effects = [ask(f"{number:04}") for number in range(QUEUE + 200)]
    toy.on[1] = lists(*effects)
    for effect in effects:
        performer.let(effect)
    runtime = Watched(make_ports(tmp_path), tmp_path)

    async def feed() -> None:
        for number in range(1, QUEUE + 200):
            await runtime.put(command(number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        nursery.start_soon(feed)
        await until(lambda: sum(key.startswith("got/") for key in runtime.state.rows) == len(effects), limit_s=600)
        nursery.cancel_scope.cancel()
    assert not any(key.startswith("effect/") for key in runtime.state.rows)


async def test_an_effect_that_fails_for_good_reason_ends_the_process(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def wrong(effect: Effect, _ports: object) -> None:
        raise LocalProtocolError(f"{effect.id} cannot be")

    toy.on[1] = lists(A)
    monkeypatch.setattr(runtime_module, "perform", wrong)
    runtime = Watched(make_ports(tmp_path), tmp_path)
    await runtime.put(command(1))
    with pytest.RaisesGroup(pytest.RaisesExc(LocalProtocolError, match="toy#a cannot be")):
        await runtime.run()


async def test_cancellation_while_the_disk_is_full_ends_the_loop(
    tmp_path: Path, toy: Toy, performer: Performer, autojump_clock: MockClock
) -> None:
    toy.on[1] = lists(A)
    journal = MemoryJournal()
    ports = make_ports(tmp_path, journal=journal)
    runtime = Watched(replace(ports, threads=False), tmp_path)
    journal.full = True
    with trio.move_on_after(60) as scope:
        await runtime.run()
    assert scope.cancelled_caught
    assert journal.load() == {}
    with pytest.raises(Unavailable):
        journal.commit(Batch((), {}))
    assert performer.ran == []
