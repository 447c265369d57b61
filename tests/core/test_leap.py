"""Joining at a later checkpoint: which one is taken, on whose word, and what happens when it is not what they say or nobody has it."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Compute, Computed, Failed, Fetch, Fetched
from nostrain.core.leap import AGAIN_S
from nostrain.core.pruning import KEEP_ROUNDS
from nostrain.core.rounds.named import MAX_LACKING, wanted
from nostrain.core.rows import NodeState, Replica
from nostrain.core.tables import ReplicaState
from nostrain.core.timing import HEAR_S, YOUNG_S
from nostrain.protocol.jobs import InspectResult
from nostrain.protocol.messages import Confirmation
from tests.core.actors import LIMITS, MESSAGES, Node
from tests.core.leaps import (
    CHECKPOINT,
    EVERYBODY,
    LATER,
    NEWCOMER,
    at,
    behind,
    checkpoint,
    confirm,
    goal,
    lands,
    named,
    result_at,
    root,
    said,
    stands,
)
from tests.core.replicas import next_announcement, replica
from tests.docs.examples import COORDINATOR, START

C = ReplicaState
A, B, _ = EVERYBODY
OTHER = named("something else", 0)


def fetching(node: Node) -> list[str]:
    """What is fetched for the replica."""
    return sorted(effect.name for effect in node.asks(Fetch) if effect.owner == "replica")


def test_a_newcomer_takes_the_newest_checkpoint_that_was_confirmed_and_no_delta_before_it() -> None:
    node = behind(6, quiet_from=5)
    assert (goal(node), replica(node).state) == (checkpoint(4), C.LEAPING)
    lands(node, root(4))
    row = replica(node)
    assert (row.round, row.root, row.checkpoint, row.head) == (4, root(4), "/blobs/leapt", named("result", 4))
    assert fetching(node) == sorted(f"delta:{named('delta', 10 + at)}" for at in range(2)), "from there it goes on by itself"


def test_nobody_confirms_a_state_that_it_did_not_compute() -> None:
    node = lands(behind(6), root(6))
    assert (replica(node).state, replica(node).round) == (C.READY, 6)
    assert not [message for message in node.speak() if isinstance(message.body, Confirmation)]


@pytest.mark.parametrize(("delta_bytes", "leaps"), [(CHECKPOINT // 12, False), (CHECKPOINT // 12 + 1, True)])
def test_who_has_a_state_leaps_when_the_deltas_are_more_bytes_than_a_checkpoint(delta_bytes: int, leaps: bool) -> None:
    node = stands(behind(8, delta_bytes=delta_bytes), 2)  # six rounds of two deltas
    assert goal(node) == (checkpoint(8) if leaps else None)
    assert (replica(node).state is C.LEAPING) is leaps
    assert leaps or len(fetching(node)) == 2


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        ("yes yes -", True),
        ("yes - -", False),
        ("yes yes root", True),
        ("yes root root", False),
        ("yes root state", False),
        ("root root root", False),
        ("state state state", False),
    ],
)
def test_t_validators_have_to_agree_and_fewer_than_t_may_disagree(words: str, taken: bool) -> None:
    node = behind(3, quiet_from=1)
    assert goal(node) is None
    true = result_at(node, 3)
    word = {"yes": (true.state_id, true.root), "root": (true.state_id, OTHER), "state": (OTHER, true.root)}
    confirm(node, 3, {key: word[told] for key, told in zip(EVERYBODY, words.split(), strict=True) if told in word})
    assert goal(node) == (checkpoint(3) if taken else None)


def test_two_who_disagree_where_one_would_do_are_not_believed() -> None:
    node = behind(3, quiet_from=1)
    run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(node.run.manifest, threshold=1))
    node.state = NodeState({**node.state.rows, "run": run})
    state = result_at(node, 3).state_id
    confirm(node, 3, {A: (state, root(3)), B: (state, root(4))})
    assert goal(node) is None
    confirm(node, 3, said(3, state, (A,)))
    assert goal(node) == checkpoint(3)


def test_who_was_proved_to_cheat_and_who_takes_no_part_have_no_voice() -> None:
    node = behind(3, quiet_from=1)
    run = msgspec.structs.replace(node.run, faulty={A: "it attested twice"})
    node.state = NodeState({**node.state.rows, "run": run})
    confirm(node, 3, said(3, result_at(node, 3).state_id, (A, B, *at(node, 3).announcement.workers)))
    assert goal(node) is None


def test_no_leap_over_a_state_that_does_not_follow_from_its_deltas() -> None:
    assert goal(behind(6, lie_at=3)) == checkpoint(2)
    node = behind(6, lie_at=1)
    assert fetching(node) == ["checkpoint"], "it repeats the run, and will say in public where it does not follow"


def test_another_file_than_was_confirmed_is_never_asked_for_again() -> None:
    node = lands(behind(4), OTHER)
    assert node.told("leaps_failed")
    assert goal(node) == checkpoint(3), "the coordinator named a wrong file for one round"
    lands(node, root(3))
    assert replica(node).round == 3


def test_a_file_that_is_no_checkpoint_leads_back_to_where_the_replica_stood() -> None:
    node = stands(behind(1, delta_bytes=CHECKPOINT), 0)
    node.ends(node.asked(Fetch, "leap:"), Fetched("/blobs/leapt"))
    node.ends(node.asked(Compute, "inspect:"), Computed(InspectResult(None, "a weight is not finite")))
    assert (replica(node).state, replica(node).round, replica(node).checkpoint) == (C.ADVANCING, 0, "/work/checkpoint")
    node.at(LATER + 10 * AGAIN_S)
    assert goal(node) is None


def test_when_nobody_serves_a_checkpoint_the_run_is_repeated_from_its_first() -> None:
    node = behind(2)
    for number in (2, 1):
        effect = node.asked(Fetch, "leap:")
        assert effect.spare
        assert goal(node) == checkpoint(number)
        node.ends(effect, Failed("no source has it"))
    assert (replica(node).state, fetching(node)) == (C.BOOTING, ["checkpoint"])
    assert goal(node.at(LATER + AGAIN_S - 1)) is None
    assert goal(node.at(LATER + AGAIN_S)) == checkpoint(2), "somebody may serve it by now"


def test_a_coordinator_computes_what_it_signs_and_pays_for() -> None:
    assert fetching(behind(6, party=COORDINATOR)) == ["checkpoint"]


def test_a_checkpoint_of_an_impossible_size_is_not_fetched() -> None:
    node = behind(2, quiet_from=2)
    assert goal(node) == checkpoint(1)
    result = result_at(node, 1)
    result = msgspec.structs.replace(result, checkpoint=msgspec.structs.replace(result.checkpoint, size=1 << 40))
    row = msgspec.structs.replace(at(node, 1), result=(named("result", 1), result))
    rows = {name: row for name, row in node.state.rows.items() if not name.startswith("effect/replica")}
    node.state = NodeState({**rows, f"round/{row.id}": row, "replica": Replica(head=node.run.id)})
    assert fetching(node.at(LATER)) == ["checkpoint"]


def test_who_joins_an_old_run_hears_of_it_first() -> None:
    node = Node(NEWCOMER)
    node.now = type(node.now)(node.now + YOUNG_S + 1)
    node.hear([MESSAGES["manifest"]])
    assert fetching(node) == []
    assert fetching(node.at(YOUNG_S + HEAR_S)) == []
    assert fetching(node.at(YOUNG_S + 1 + HEAR_S)) == ["checkpoint"]


def test_deltas_of_old_rounds_that_nobody_has_any_more_are_leapt_over_whatever_it_costs() -> None:
    node = stands(behind(KEEP_ROUNDS + 1, quiet_from=1), 0)
    first, second = (effect for effect in node.asks(Fetch) if effect.name.startswith("delta:"))
    assert first.spare
    node.ends(first, Failed("no source has it"))
    assert node.told("deltas_gone")
    assert replica(node).state is C.ADVANCING
    assert all(effect.must and not effect.spare for effect in node.asks(Fetch) if effect.owner == "replica"), (
        "now it waits, for whichever comes first"
    )
    node.ends(second, Fetched("/blobs/late"))
    confirm(node, 4, said(4, result_at(node, 4).state_id))
    assert goal(node) == checkpoint(4)
    lands(node, root(4))
    assert (replica(node).round, replica(node).gone) == (4, False)


def test_deltas_of_rounds_that_servers_keep_are_waited_for() -> None:
    node = stands(behind(KEEP_ROUNDS), 0)
    assert [effect.spare for effect in node.asks(Fetch) if effect.owner == "replica"] == [False, False]


def test_a_newcomer_listens_on_while_the_coordinator_speaks_of_rounds_that_it_has_not_heard_of() -> None:
    node = Node(NEWCOMER).at(YOUNG_S + 1)
    third = next_announcement(number=3)
    node.hear([MESSAGES["manifest"], third])
    assert wanted(node.state).rounds == (1, 2, 3)
    assert fetching(node.at(YOUNG_S + 1 + HEAR_S)) == []
    assert fetching(node.at(YOUNG_S + 1 + 9 * HEAR_S)) == []
    node.hear([MESSAGES["announcement"]])
    assert fetching(node.at(LIMITS.attest_by - START)) == ["checkpoint"], "the round that it knows goes on now"


def test_a_long_history_is_asked_for_in_pieces() -> None:
    node = Node(NEWCOMER).hear([MESSAGES["manifest"], next_announcement(number=500)])
    assert wanted(node.state).rounds == tuple(range(1, MAX_LACKING + 1))
    assert wanted(Node(NEWCOMER).hear([MESSAGES["manifest"], MESSAGES["announcement"]]).state).rounds == (), "only the next is not heard of"
