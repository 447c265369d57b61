"""What the watcher of a devnet says and concludes from the events of a recorded run, whole, cut short or disturbed."""

from __future__ import annotations

import re
from collections import Counter

import msgspec
import pytest

from nostrain.devnet.observer import PHASES, Observer
from nostrain.devnet.waiting import MARGIN_S, START_S, awaited, longest_silence, round_s
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.protocol.event import Draft, Event
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Commitment, Enrolment
from nostrain.testing.simulation import TIMING
from nostrain.wire import kinds
from nostrain.wire.messages import draft, read_message_untrusted
from tests.devnet.recorded import ROUNDS, VALIDATORS, WORKERS, Recording, recording


@pytest.fixture(scope="module")
def recorded() -> Recording:
    return recording()


def kinds_until(recorded: Recording, kind: int, number: int = 1) -> int:
    """How many events there are up to and with the `number`-th of a kind."""
    found = [place for place, event in enumerate(recorded.events) if event.kind == kind]
    return found[number - 1] + 1


def test_one_line_for_each_phase_and_round(recorded: Recording) -> None:
    _, lines = recorded.watched()
    phases = Counter(tuple(line.split()[:3]) for line in lines if line.startswith("round "))
    names = ["open", *PHASES.values()]
    assert phases == {("round", str(number), name): 1 for number in range(1, ROUNDS + 1) for name in names}
    assert sum("holds the first checkpoint" in line for line in lines) == 1 + WORKERS + VALIDATORS
    assert sum("parameters: a worker needs" in line for line in lines) == 1
    assert sum(f"all {WORKERS + VALIDATORS} engines need" in line for line in lines) == 1
    assert max(map(len, lines)) < 90


def test_lines_are_the_same_for_the_same_events(recorded: Recording) -> None:
    assert recorded.watched()[1] == recorded.watched()[1]


def test_phases_come_in_order_within_a_round(recorded: Recording) -> None:
    _, lines = recorded.watched()
    of_first = [line.split()[2] for line in lines if line.startswith("round 1 ")]
    assert of_first == ["open", *PHASES.values()]


def test_it_is_over_with_the_last_confirmation(recorded: Recording) -> None:
    observer, _ = recorded.watched()
    assert observer.done
    assert observer.over
    last = max(place for place, event in enumerate(recorded.events) if event.kind == kinds.CONFIRMATION)
    assert not recorded.watched(without=frozenset({last}))[0].done


def test_a_halted_run_is_over(recorded: Recording) -> None:
    observer, _ = recorded.watched(kinds_until(recorded, kinds.ANNOUNCEMENT))
    assert not observer.over
    run = observer.run
    assert run is not None
    rows = {**observer.state.rows, "run": msgspec.structs.replace(run, halted="two announcements")}
    observer.state = msgspec.structs.replace(observer.state, rows=rows)
    assert observer.over
    assert not observer.done


def stranger(event_kind: int, content: str, like: Event) -> Event:
    signer = NostrSigner(RootSecret(b"\x07" * 32))
    return signer.sign(Draft(created_at=like.created_at, kind=event_kind, tags=like.tags, content=content))


def test_nonsense_is_a_fault_and_not_the_end(recorded: Recording) -> None:
    observer, lines = recorded.watched()
    event = recorded.events[-1]
    observer.take(stranger(event.kind, "{", event))
    observer.take(stranger(event.kind, "[" * 5000, event))
    assert len(observer.faults) == 2
    assert not any("{" * 2 in line for line in lines)


def test_a_strangers_word_is_a_fault_with_a_line(recorded: Recording) -> None:
    observer, lines = recorded.watched(kinds_until(recorded, kinds.ANNOUNCEMENT))
    event = next(event for event in recorded.events if event.kind == kinds.COMMITMENT)
    said = read_message_untrusted(event)
    assert isinstance(said.body, Commitment)
    signed = NostrSigner(RootSecret(b"\x07" * 32)).sign(draft(said.body, said.created_at))
    observer.take(signed)
    assert len(observer.faults) == 1
    assert lines[-1].startswith("! commitment from")


def test_what_breaks_the_machines_does_not_break_the_watch(recorded: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    observer, lines = recorded.watched(3)
    state = observer.state
    monkeypatch.setattr("nostrain.devnet.observer.node.step", lambda *_: {}["surprise"])
    observer.take(recorded.events[3])
    assert observer.state is state
    assert "broke the observer: KeyError: 'surprise'" in lines[-1]
    assert observer.faults == [lines[-1].removeprefix("! ")]


def test_names_of_strangers_cannot_command_a_terminal(recorded: Recording) -> None:
    lines: list[str] = []
    observer = Observer(lines.append, dict.fromkeys(recorded.names, "x\x1b[2J\ny"))
    for event in recorded.events:
        observer.take(event)
    assert any("x?[2J?y holds the first checkpoint" in line for line in lines)
    assert all(line.isprintable() for line in lines)


def test_seconds_run_from_milestone_to_milestone(recorded: Recording) -> None:
    observer, _ = recorded.watched()
    for watched in observer.rounds.values():
        assert list(watched.seen) == ["announced", *PHASES]
        times = list(watched.seen.values())
        assert times == sorted(times)


@pytest.mark.parametrize(
    ("after", "number", "names", "what"),
    [
        (None, 0, ["coordinator"], "no run was published"),
        (kinds.MANIFEST, 1, ["validator-1", "validator-2", "validator-3", "worker-1", "worker-2", "worker-3"], "not enrolled"),
        (kinds.ENROLMENT, 6, ["coordinator"], "round 1 was not opened"),
        (kinds.RESULT, 1, ["coordinator"], "round 2 was not opened"),
    ],
)
def test_whom_a_run_waits_for(recorded: Recording, after: int | None, number: int, names: list[str], what: str) -> None:
    observer, _ = recorded.watched(0 if after is None else kinds_until(recorded, after, number))
    assert awaited(observer, recorded.participants) == (names, what)


def test_whom_a_round_waits_for(recorded: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what one participant said: it is the one who is waited for."""
    now = recorded.events[0].created_at
    monkeypatch.setattr("nostrain.devnet.waiting.time.time", lambda: now)
    names = dict(recorded.names)
    stages = [
        (kinds.COMMITMENT, kinds.RECEIPT, "no commitment or receipt in round 1"),
        (kinds.REVEAL, kinds.VERDICT, "no reveal in round 1"),
        (kinds.ATTESTATION, kinds.RESULT, "no attestation in round 1"),
    ]
    for kind, following, what in stages:
        place = kinds_until(recorded, kind) - 1
        observer, _ = recorded.watched(kinds_until(recorded, following) - 1, without=frozenset({place}))
        assert awaited(observer, recorded.participants) == ([names[recorded.events[place].pubkey]], what)


def test_a_round_that_is_overdue_is_the_coordinators(recorded: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    observer, _ = recorded.watched(kinds_until(recorded, kinds.ANNOUNCEMENT))
    monkeypatch.setattr("nostrain.devnet.waiting.time.time", lambda: recorded.events[-1].created_at + 10_000)
    assert awaited(observer, recorded.participants) == (["coordinator"], "round 1 was not closed in time")


def test_whom_the_end_waits_for(recorded: Recording) -> None:
    last = max(place for place, event in enumerate(recorded.events) if event.kind == kinds.CONFIRMATION)
    observer, _ = recorded.watched(without=frozenset({last}))
    name = recorded.names[recorded.events[last].pubkey]
    assert awaited(observer, recorded.participants) == ([name], f"no confirmation of round {ROUNDS}")


def test_how_long_silence_may_last(recorded: Recording) -> None:
    assert longest_silence(recorded.watched(0)[0]) == START_S
    assert longest_silence(recorded.watched(kinds_until(recorded, kinds.ANNOUNCEMENT))[0]) == MARGIN_S + round_s(TIMING)
    assert longest_silence(recorded.watched()[0]) == MARGIN_S
    assert round_s(TIMING) == sum(int(value) for value in re.findall(r"=(\d+)", repr(TIMING)))


def test_the_recording_is_a_whole_run(recorded: Recording) -> None:
    """The other tests lean on it."""
    bodies = Counter(type(read_message_untrusted(event).body) for event in recorded.events)
    assert bodies[RunManifest] == 1
    assert bodies[Enrolment] == WORKERS + VALIDATORS + WORKERS, "workers enrol again when they know how fast they train"
    assert bodies[Commitment] == ROUNDS * WORKERS
