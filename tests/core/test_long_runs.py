"""What a run leaves behind: the copy of the model that follows it, rows that are forgotten, messages that wait."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core import node as router
from nostrain.core.effects import Cancel, Compute, Computed, DatasetRead, Failed, Fetch, FetchDataset, Fetched, Outcome
from nostrain.core.escrow.rows import Payee, PayeeLevel, Payer, PayerLevel
from nostrain.core.pruning import KEEP_ROUNDS
from nostrain.core.rows import NodeState, Outstanding, Replica, Round, Submission, Waiting
from nostrain.core.tables import PayeeState, PayerState, ReplicaState, SubmissionState
from nostrain.core.timing import deadlines
from nostrain.protocol.jobs import AggregateResult, InspectResult, ValidationResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Announcement, Confirmation, Message, Result
from nostrain.units import Digest, EventId, UnixTime
from tests.core.actors import DATASET, EXAMPLES, MESSAGES, ROUND, Node, changed, say, until
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Party

C = ReplicaState
RESULT = MESSAGES["result"].body
assert isinstance(RESULT, Result)


# --- the replica ---------------------------------------------------------------------------------------------------------


def replica(node: Node) -> Replica:
    return node.row("replica", Replica)


def booted(party: Party = WORKERS[0], *roles: str) -> Node:
    """The first checkpoint is fetched and inspected, the dataset read."""
    node = Node(party, *roles).hear([MESSAGES["manifest"]])  # type: ignore[arg-type]
    node.ends(node.asked(FetchDataset), DatasetRead(DATASET))
    node.ends(node.asked(Fetch, "checkpoint"), Fetched("/blobs/checkpoint"))
    node.ends(node.asked(Compute, "inspect"), Computed(InspectResult(EXAMPLES.manifest.root)))
    return node


def stepped(state_id: Digest = RESULT.state_id, root: Digest = RESULT.root, weights: tuple[int, ...] | None = None) -> Computed:
    caps = tuple(item.weight for item in RESULT.accepted)
    return Computed(AggregateResult(state_id, root, BlobRef(Digest("4" * 64), 9), caps if weights is None else weights))


def advanced(node: Node, outcome: Outcome) -> Node:
    """The deltas of the result are there, and the outer step ended."""
    for effect in node.asks(Fetch):
        if effect.name.startswith("delta:"):
            node.ends(effect, Fetched(f"/blobs/{effect.blob.sha256}"))
    node.ends(node.asked(Compute, "aggregate"), outcome)
    return node


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


# --- many rounds ---------------------------------------------------------------------------------------------------------


def next_announcement(parent: EventId = MESSAGES["result"].id, number: int = 2, after: int = 100) -> Message:
    """The next round, on the state of the examples' result."""
    body = msgspec.structs.replace(
        EXAMPLES.announcement,
        round=number,
        parent=parent,
        state_id=RESULT.state_id,
        deadlines=deadlines(UnixTime(START + after), EXAMPLES.manifest),
    )
    return say(COORDINATOR, body, after)


def empty(announcement: Message, after: int) -> Message:
    """A result that uses no work."""
    assert isinstance(announcement.body, Announcement)
    number = announcement.body.round
    body = msgspec.structs.replace(
        RESULT, announcement=announcement.id, round=number, attestations=(), accepted=(), state_id=announcement.body.state_id
    )
    return say(COORDINATOR, body, after)


def rounds(count: int) -> list[Message]:
    """So many empty rounds after the examples' (whose manifest says eight in all)."""
    chain, head = [], MESSAGES["result"].id
    for number in range(2, 2 + count):
        opened = next_announcement(head, number, 100 * number)
        closed = empty(opened, 100 * number + 95)
        chain += [opened, closed]
        head = closed.id
    return chain


def long_run() -> Node:
    """A node that follows a run of many rounds, and has just closed the first."""
    manifest = msgspec.structs.replace(EXAMPLES.manifest, rounds=100)
    node = booted(WORKERS[0])
    node.hear(ROUND[1:])
    run = msgspec.structs.replace(node.run, manifest=manifest)
    node.state = NodeState({**node.state.rows, "run": run})
    node.speak()
    return node


def test_old_rounds_are_forgotten_and_the_chain_goes_on() -> None:
    node = advanced(long_run(), stepped())
    node.speak()
    node.hear(rounds(20))
    node.speak()
    kept = {row.announcement.round for row in node.state.rows.values() if isinstance(row, Round)}
    assert kept == set(range(21 - KEEP_ROUNDS + 1, 22))
    assert len(node.run.announcements) == len(node.run.results) == KEEP_ROUNDS
    assert node.run.round == 21
    for key in node.state.rows:
        assert EXAMPLES.round_id not in key


def test_what_comes_late_for_a_forgotten_round_is_nothing() -> None:
    node = advanced(long_run(), stepped())
    node.hear(rounds(20))
    node.speak()
    before, notes = node.state.rows, len(node.notes)
    node.hear(ROUND)
    node.hear([changed("commitment 0", WORKERS[0], announcement=EventId("3" * 64))])
    assert node.state.rows == before
    assert [note.text for note in node.notes[notes:]] == []


def test_a_round_is_kept_while_our_copy_has_not_followed_it() -> None:
    node = long_run().hear(rounds(20))
    assert node.has(f"round/{EXAMPLES.round_id}")
    advanced(node, stepped())
    node.speak()
    assert replica(node).round == 21
    assert not node.has(f"round/{EXAMPLES.round_id}")


def test_a_round_is_kept_while_it_is_being_confirmed() -> None:
    node = long_run()
    rows = {key: row for key, row in node.state.rows.items() if not key.startswith("effect/")}
    there = msgspec.structs.replace(
        replica(node), round=1, head=MESSAGES["result"].id, state=C.READY, confirming=EXAMPLES.round_id, dataset=None
    )
    node.state = NodeState({**rows, "replica": there})
    node.hear(rounds(20))
    assert node.has(f"round/{EXAMPLES.round_id}")


LOCK_PAYEE = Payee(EventId(EXAMPLES.round_id), WORKERS[0].pubkey, levels=(PayeeLevel(PayeeState.CANCELLED),))
DONE_PAYER = Payer(EventId(EXAMPLES.round_id), WORKERS[0].pubkey, levels=(PayerLevel(PayerState.PAID),))


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ({}, False),
        ({f"payee/{EXAMPLES.round_id}": LOCK_PAYEE}, False),
        (
            {f"payee/{EXAMPLES.round_id}": msgspec.structs.replace(LOCK_PAYEE, levels=(PayeeLevel(PayeeState.SETTLING, preimage="1"),))},
            True,
        ),
        ({f"payer/{EXAMPLES.round_id}/{WORKERS[0].pubkey}": DONE_PAYER}, False),
        (
            {
                f"payer/{EXAMPLES.round_id}/{WORKERS[0].pubkey}": msgspec.structs.replace(
                    DONE_PAYER, levels=(PayerLevel(PayerState.PAYING),)
                )
            },
            True,
        ),
        (
            {
                f"payee/{EXAMPLES.round_id}": LOCK_PAYEE,
                f"effect/payee/{EXAMPLES.round_id}#cancel:0": Outstanding(
                    Cancel(f"payee/{EXAMPLES.round_id}", "cancel:0", Digest("1" * 64))
                ),
            },
            True,
        ),
    ],
    ids=["no money", "cancelled", "being settled", "paid", "being paid", "being given back"],
)
def test_a_round_is_kept_while_money_hangs_on_it(rows: dict[str, object], kept: bool) -> None:
    node = advanced(long_run(), stepped())
    node.speak()
    others = {key: row for key, row in node.state.rows.items() if not key.startswith(("payee/", "payer/"))}
    node.state = NodeState({**others, **rows})  # type: ignore[dict-item]
    node.hear(rounds(20))
    assert node.has(f"round/{EXAMPLES.round_id}") is kept


def test_an_outcome_for_a_forgotten_row_is_nothing() -> None:
    node = advanced(long_run(), stepped())
    work = Submission(EventId(EXAMPLES.round_id), SubmissionState.REFUSED)
    effect = Fetch(f"work/{EXAMPLES.round_id}", "shard", BlobRef(Digest("1" * 64), 1))
    node.state = NodeState({**node.state.rows, f"work/{EXAMPLES.round_id}": work, f"effect/{effect.id}": Outstanding(effect)})
    node.hear(rounds(20))
    assert not node.has(f"effect/{effect.id}")
    before = node.state.rows
    assert node.ends(effect, Fetched("/x")).state.rows == before


def test_a_long_streak_of_empty_rounds_is_caught_up_at_once() -> None:
    node = long_run().hear(rounds(90))
    assert replica(node).round == 0
    advanced(node, stepped())
    assert replica(node).round == 91
    assert len(rounds(90)) > router.MAX_PASSES


# --- waiting -------------------------------------------------------------------------------------------------------------


def test_history_that_comes_newest_first_is_followed_to_its_end() -> None:
    history = [*ROUND, *rounds(6)]
    node = Node(Party("newcomer")).hear(reversed(history))
    assert node.run.round == 7
    assert not [row for row in node.state.rows.values() if isinstance(row, Waiting)]


def test_what_waits_for_a_round_that_is_closed_without_it_is_dropped() -> None:
    ghost = changed("commitment 0", WORKERS[0], announcement=EventId("3" * 64))
    node = Node(Party("listener")).hear([*until("attestation 2"), ghost])
    assert [row.message.id for row in node.state.rows.values() if isinstance(row, Waiting)] == [ghost.id]
    node.hear([MESSAGES["result"]])
    assert not [row for row in node.state.rows.values() if isinstance(row, Waiting)]
