"""The chain: which run is followed, who enrolled, which announcement continues it, and what ends it. (What cannot be announced: test_hostile.)"""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Prove
from nostrain.core.identity import Identity
from nostrain.core.inputs import Boot, Received
from nostrain.core.node import step
from nostrain.core.rows import NodeState
from nostrain.protocol import messages as m
from nostrain.protocol.messages import Message, Result
from nostrain.units import EventId, Pubkey, UnixTime
from tests.core.actors import EXAMPLES, MESSAGES, ROUND, Node, changed, refuses, say, until
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Party

MANIFEST, ANNOUNCEMENT = MESSAGES["manifest"], MESSAGES["announcement"]
NOWHERE = EventId("0" * 64)


def joins(message: Message, **wanted: object) -> bool:
    """Whether a node with that configuration follows the manifest."""
    identity = Identity(pubkey=Pubkey("f" * 64), name="node", roles=(), work_dir="/work", **wanted)  # type: ignore[arg-type]
    state = step(NodeState(), Boot(identity), START).state
    return "run" in step(state, Received(message), START).state.rows


@pytest.mark.parametrize(
    ("wanted", "followed"),
    [
        ({}, True),
        ({"join_run": MANIFEST.id}, True),
        ({"join_run": NOWHERE}, False),
        ({"join_coordinator": COORDINATOR.pubkey}, True),
        ({"join_coordinator": WORKERS[0].pubkey}, False),
    ],
)
def test_a_run_is_followed_if_it_was_asked_for(wanted: dict[str, str], followed: bool) -> None:
    assert joins(MANIFEST, **wanted) is followed


def test_a_coordinator_follows_its_own_run_only() -> None:
    assert not Node(WORKERS[0], "coordinator").hear([MANIFEST]).has("run")
    assert Node(COORDINATOR, "coordinator").hear([MANIFEST]).run.id == MANIFEST.id


def test_the_first_run_is_followed_for_good() -> None:
    second = changed("manifest", COORDINATOR, name="second")
    node = Node(Party("listener")).hear([MANIFEST, second])
    assert node.run.id == MANIFEST.id
    assert not node.told("messages_refused")


def test_the_chain_begins_at_the_manifests_state() -> None:
    run = Node(Party("listener")).hear([MANIFEST]).run
    assert (run.head, run.state_id, run.round, run.open) == (MANIFEST.id, EXAMPLES.state_id, 0, None)


# --- enrolment -----------------------------------------------------------------------------------------------------------


def enrolled(node: Node, party: Party) -> tuple[EventId, UnixTime, m.Enrolment]:
    return node.run.enrolled[party.pubkey]


def test_the_newest_enrolment_stands() -> None:
    old, new = (changed("enrolment worker 0", WORKERS[0], after, name=f"w{after}") for after in (10, 20))
    for order in ([old, new], [new, old]):
        node = Node(Party("listener")).hear([MANIFEST, *order])
        assert enrolled(node, WORKERS[0])[2].name == "w20"


def test_enrolling_again_forgives_absence() -> None:
    node = Node(Party("listener")).hear(ROUND)
    away = msgspec.structs.replace(node.run, missed={WORKERS[0].pubkey: 3, WORKERS[1].pubkey: 2})
    node.state = NodeState({**node.state.rows, "run": away})
    node.hear([changed("enrolment worker 0", WORKERS[0], 100)])
    assert node.run.missed == {WORKERS[1].pubkey: 2}


@pytest.mark.parametrize("missing", ["oracle", "chain_end", "chain_length"])
def test_a_validator_without_oracle_or_chain_is_refused(missing: str) -> None:
    body = msgspec.structs.replace(MESSAGES["enrolment validator 0"].body, **{missing: 0 if missing == "chain_length" else None})
    message = Message(EventId("1" * 64), VALIDATORS[0].pubkey, START, body)
    refuses([MANIFEST], message, "a validator without oracle key or hash chain")


@pytest.mark.parametrize("changes", [{"role": "worker"}, {"oracle": WORKERS[0].oracle}, {"chain_end": "1" * 64}, {"chain_length": 9}])
def test_an_enrolment_that_contradicts_an_earlier_one_is_refused(changes: dict[str, object]) -> None:
    body = msgspec.structs.replace(MESSAGES["enrolment validator 0"].body, **changes)
    message = Message(EventId("1" * 64), VALIDATORS[0].pubkey, UnixTime(START + 50), body)
    refuses([MANIFEST, MESSAGES["enrolment validator 0"]], message, "contradicts an earlier one")


def test_what_belongs_to_another_run_is_refused() -> None:
    for label, party in (("enrolment worker 0", WORKERS[0]), ("announcement", COORDINATOR), ("commitment 0", WORKERS[0])):
        body = msgspec.structs.replace(MESSAGES[label].body, run=NOWHERE)
        message = Message(EventId("2" * 64), party.pubkey, START, body)
        refuses(until("announcement"), message, "belongs to another run")


# --- announcements -------------------------------------------------------------------------------------------------------


def test_an_announcement_by_anyone_else_is_refused() -> None:
    refuses(until("enrolment worker 2"), say(WORKERS[0], EXAMPLES.announcement, 5), "not by the coordinator of the run")


def test_a_second_announcement_on_one_parent_halts_the_run_once() -> None:
    forked = [say(COORDINATOR, EXAMPLES.announcement, after) for after in (6, 7)]
    node = Node(Party("listener")).hear([*until("announcement"), *forked])
    assert node.run.halted == f"the coordinator announced two rounds on {MANIFEST.id[:8]}"
    assert len(node.told("runs_halted")) == 1


def test_an_announcement_waits_for_its_parent() -> None:
    body = msgspec.structs.replace(EXAMPLES.announcement, parent=NOWHERE, round=2)
    node = Node(Party("listener")).hear([*until("announcement"), say(COORDINATOR, body, 9)])
    assert [key for key in node.state.rows if key.startswith("waiting/")]
    assert node.run.halted is None


def test_an_old_announcement_that_leads_nowhere_is_dropped() -> None:
    body = msgspec.structs.replace(EXAMPLES.announcement, parent=NOWHERE)
    node = Node(Party("listener")).hear([*ROUND, say(COORDINATOR, body, 9)])
    assert not [key for key in node.state.rows if key.startswith("waiting/")]
    assert not node.told("messages_refused")


# --- what ends a run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "changes", "reason"),
    [
        ("announcement", {}, "announced two rounds"),
        ("receipt", {"commitments": ()}, "two receipts for round 1"),
        ("result", {"refused": ()}, "two results for round 1"),
    ],
)
def test_two_children_of_one_parent_halt_the_run(label: str, changes: dict[str, object], reason: str) -> None:
    node = Node(Party("listener")).hear([*ROUND, changed(label, COORDINATOR, 99, **changes)])
    assert node.run.halted is not None
    assert reason in node.run.halted


def test_the_same_by_anyone_else_halts_nothing() -> None:
    for label in ("announcement", "receipt", "result"):
        node = Node(Party("listener")).hear([*ROUND, changed(label, WORKERS[0], 99)])
        assert node.run.halted is None
        assert [text for text in node.told("messages_refused") if "not by the coordinator" in text]


def test_nobody_works_in_a_halted_run() -> None:
    node = Node(WORKERS[0], "worker").hear(until("announcement")).ready()
    before = node.asks(object)  # type: ignore[type-var]
    node.hear([say(COORDINATOR, EXAMPLES.announcement, 6)])
    assert node.run.halted
    assert [effect for effect in node.at(10).asks(object) if not isinstance(effect, Prove)] == before  # type: ignore[type-var]


def test_the_head_moves_with_the_result() -> None:
    run = Node(Party("listener")).hear(ROUND).run
    result = MESSAGES["result"].body
    assert isinstance(result, Result)
    assert (run.head, run.round, run.state_id, run.open) == (MESSAGES["result"].id, 1, result.state_id, None)
    assert run.results == {EXAMPLES.round_id: MESSAGES["result"].id}
    assert run.missed == {party.pubkey: 0 for party in WORKERS}


@pytest.mark.parametrize("speed", [-1, 10**12 + 1])
def test_nobody_trains_that_fast(speed: int) -> None:
    refuses(until("manifest"), changed("enrolment worker 0", WORKERS[0], tokens_per_s=speed), "tokens a second")
