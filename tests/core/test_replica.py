"""A node's own copy of the model: it follows every result, confirms what it computed, and says in public when a result does not follow."""

from __future__ import annotations

import pytest

from nostrain.core.effects import Compute, Computed, Failed, Fetch, Fetched, Outcome
from nostrain.core.tables import ReplicaState
from nostrain.protocol.jobs import AggregateResult, InspectResult, ValidationResult
from nostrain.protocol.messages import Confirmation, Result
from nostrain.units import Digest
from tests.core.actors import EXAMPLES, MESSAGES, ROUND, Node
from tests.core.replicas import advanced, booted, empty, next_announcement, replica, stepped
from tests.docs.examples import VALIDATORS, WORKERS, Party

C = ReplicaState
RESULT = MESSAGES["result"].body
assert isinstance(RESULT, Result)


def confirmed(node: Node) -> list[Confirmation]:
    return [message.body for message in node.speak() if isinstance(message.body, Confirmation)]


def test_everyone_confirms_the_manifests_state_first() -> None:
    (said,) = confirmed(booted(WORKERS[0]))
    assert (said.announcement, said.result, said.round, said.state_id) == (EXAMPLES.run, EXAMPLES.run, 0, EXAMPLES.state_id)


def test_the_state_after_a_result_is_computed_and_confirmed() -> None:
    node = booted(WORKERS[0])
    confirmed(node)
    node.hear(ROUND[1:])
    assert not node.asks(Compute), "the deltas are not here yet"
    advanced(node, stepped())
    (said,) = confirmed(node)
    assert (said.round, said.result, said.state_id, said.root) == (1, MESSAGES["result"].id, RESULT.state_id, RESULT.root)
    assert (replica(node).state, replica(node).round, replica(node).head) == (C.READY, 1, MESSAGES["result"].id)


def test_a_validator_measures_before_it_confirms() -> None:
    node = booted(VALIDATORS[0], "validator")
    node.ends(node.asked(Fetch, "validation"), Fetched("/blobs/validation"))
    node.ends(node.asked(Compute, "validation"), Computed(ValidationResult(5_545_000_000, 16_384)))
    assert [body.validation_nanonats for body in confirmed(node)] == [5_545_000_000]


def test_a_state_that_cannot_be_measured_is_confirmed_all_the_same_and_once() -> None:
    node = booted(VALIDATORS[0], "validator")
    node.ends(node.asked(Fetch, "validation"), Fetched("/blobs/validation"))
    node.ends(node.asked(Compute, "validation"), Failed("losses that are no numbers"))
    assert [body.validation_nanonats for body in confirmed(node)] == [None]
    assert not node.at(9).asks(Compute)


@pytest.mark.parametrize(
    "outcome",
    [stepped(state_id=Digest("1" * 64)), stepped(root=Digest("1" * 64)), stepped(weights=(1, 1))],
    ids=["state", "root", "weights"],
)
def test_a_result_that_does_not_follow_is_said_in_public_and_ends_it(outcome: Computed) -> None:
    node = booted(WORKERS[0])
    confirmed(node)
    advanced(node.hear(ROUND[1:]), outcome)
    assert replica(node).state is C.DIVERGED
    assert node.told("states_diverged")
    assert isinstance(outcome.result, AggregateResult)
    assert [body.state_id for body in confirmed(node)] == [outcome.result.state_id]
    assert not node.at(100).asks(Compute)


@pytest.mark.parametrize("outcome", [Computed(AggregateResult(None, None, None, error="delta: not one")), Failed("the engine refuses")])
def test_an_outer_step_that_is_not_possible_ends_it(outcome: Outcome) -> None:
    node = booted(WORKERS[0])
    confirmed(node)
    advanced(node.hear(ROUND[1:]), outcome)
    assert replica(node).state is C.DIVERGED
    assert not confirmed(node)
    assert not node.at(100).asks(Compute)


def test_another_first_checkpoint_than_the_manifests_is_not_followed() -> None:
    node = Node(WORKERS[0]).hear([MESSAGES["manifest"]])
    node.ends(node.asked(Fetch, "checkpoint"), Fetched("/blobs/checkpoint"))
    node.ends(node.asked(Compute, "inspect"), Computed(InspectResult(Digest("1" * 64))))
    assert replica(node).state is C.DIVERGED


def test_a_newcomer_does_not_confirm_what_it_took_no_part_in_and_lies_behind() -> None:
    node = booted(Party("newcomer"))
    confirmed(node)
    node.hear(ROUND[1:])
    next_ = next_announcement()
    node.hear([next_, empty(next_, 200)])
    advanced(node, stepped())
    assert [body.round for body in confirmed(node)] == [2]
