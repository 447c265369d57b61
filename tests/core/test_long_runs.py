"""What a run leaves behind: rounds that are forgotten, rows that are kept while something hangs on them, messages that wait."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core import node as router
from nostrain.core.effects import Cancel, Fetch, Fetched
from nostrain.core.escrow.rows import Payee, PayeeLevel, Payer, PayerLevel
from nostrain.core.pruning import KEEP_ROUNDS
from nostrain.core.rows import NodeState, Outstanding, Round, Submission, Waiting
from nostrain.core.tables import PayeeState, PayerState, ReplicaState, SubmissionState
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Result
from nostrain.units import Digest, EventId
from tests.core.actors import EXAMPLES, MESSAGES, ROUND, Node, changed, until
from tests.core.long_run import long_run, rounds
from tests.core.replicas import advanced, replica, stepped
from tests.docs.examples import WORKERS, Party

C = ReplicaState
RESULT = MESSAGES["result"].body
assert isinstance(RESULT, Result)


# --- many rounds ---------------------------------------------------------------------------------------------------------


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
