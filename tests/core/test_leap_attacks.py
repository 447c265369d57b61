"""What a coordinator or a blob server can do to whoever joins late: name checkpoints that are not there, or of sizes that cannot be."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Failed, Fetch
from nostrain.core.leap import AGAIN_S, TRIES, result_of
from nostrain.core.rows import NodeState, Replica, Round
from nostrain.core.tables import ReplicaState
from nostrain.protocol.messages import Result
from tests.core.actors import Node
from tests.core.leaps import (
    CHECKPOINT,
    EVERYBODY,
    LATER,
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
from tests.core.replicas import replica

C = ReplicaState
OTHER = named("something else", 0)


def sized(node: Node, number: int, size: int) -> Node:
    """The coordinator says that of the checkpoint after a round."""
    result = result_at(node, number)
    result = msgspec.structs.replace(result, checkpoint=msgspec.structs.replace(result.checkpoint, size=size))
    row = msgspec.structs.replace(at(node, number), result=(named("result", number), result))
    node.state = NodeState({**node.state.rows, f"round/{row.id}": row})
    return node


def refused(node: Node, seconds: int) -> int:
    """How many checkpoints a newcomer asks for, each that long, until it repeats the run from its first."""
    tries, now = 0, LATER
    while (digest := goal(node)) is not None:
        assert digest in {checkpoint(number) for number in range(1, 101)}
        effect, tries, now = node.asked(Fetch, "leap:"), tries + 1, now + seconds
        assert tries <= 100, "for ever"
        node.at(now).ends(effect, Failed("no source has it"))
    return tries


@pytest.mark.parametrize("seconds", [1, 20, 400])
def test_a_run_none_of_whose_checkpoints_is_served_is_repeated_from_its_first_however_long_each_of_them_takes(seconds: int) -> None:
    node = behind(100)
    assert refused(node, seconds) == TRIES
    assert (replica(node).state, [effect.name for effect in node.asks(Fetch) if effect.owner == "replica"]) == (C.BOOTING, ["checkpoint"])
    node.at(LATER + TRIES * seconds + AGAIN_S)
    assert goal(node) == checkpoint(100), "somebody may serve it by now"


def test_wrong_files_of_so_many_rounds_are_not_all_fetched() -> None:
    node = behind(100)
    for number in range(100, 100 - TRIES, -1):
        assert goal(node) == checkpoint(number)
        lands(node, OTHER)
    assert goal(node) is None
    assert goal(node.at(LATER + 10 * AGAIN_S)) is None


@pytest.mark.parametrize(("size", "number"), [(1, 9), (1 << 40, 8)])
def test_what_a_coordinator_says_of_a_size_neither_makes_a_leap_of_a_round_worth_it_nor_prevents_a_long_one(size: int, number: int) -> None:
    node = stands(sized(behind(1), 1, size), 0)
    assert (goal(node), replica(node).state) == (None, C.ADVANCING)
    assert goal(stands(sized(behind(9, delta_bytes=CHECKPOINT), 9, size), 0)) == checkpoint(number)


def test_validators_that_disagree_while_the_file_is_fetched_are_heard() -> None:
    """A relay shows what liars say first, and the others' word when the newcomer is under way."""
    node = behind(3, quiet_from=3)
    run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(node.run.manifest, threshold=1))
    node.state = NodeState({**node.state.rows, "run": run})
    first, second, third = EVERYBODY
    liar = said(3, result_at(node, 3).state_id, (first,))
    node = restart(confirm(node, 3, liar))
    assert goal(node) == checkpoint(3)
    confirm(node, 3, {**liar, second: (OTHER, OTHER), third: (OTHER, OTHER)})
    lands(node, root(3))
    assert node.told("leaps_failed")
    assert goal(node) == checkpoint(2), "which all of them confirmed"


def restart(node: Node) -> Node:
    """Its replica begins again."""
    rows = {key: row for key, row in node.state.rows.items() if not key.startswith("effect/replica")}
    node.state = NodeState({**rows, "replica": Replica(head=node.run.id)})
    return node.at(LATER)


def test_looking_for_a_checkpoint_takes_work_in_proportion_to_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that hides all confirmations would otherwise stop a newcomer for seconds at everything that it hears."""
    looked: list[Round] = []

    def counted(round_: Round) -> Result:
        looked.append(round_)
        return result_of(round_)

    small, large = behind(100, quiet_from=1), behind(300, quiet_from=1)
    monkeypatch.setattr("nostrain.core.leap.result_of", counted)
    small.at(LATER + 1)
    first = len(looked)
    large.at(LATER + 1)
    assert first >= 100
    assert len(looked) - first == 3 * first
