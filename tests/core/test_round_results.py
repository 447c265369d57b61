"""A round's result: what makes it void, what it waits for, and who confirms it."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.rounds.round import phase
from nostrain.core.tables import RoundPhase
from nostrain.protocol import messages as m
from nostrain.protocol.manifest import BlobRef
from nostrain.units import Digest, EventId
from tests.core.actors import EXAMPLES, MESSAGES, ROUND, Node, changed, refuses, until
from tests.docs.examples import COORDINATOR, VALIDATORS, WORKERS, Party

NOWHERE = EventId("0" * 64)
STRANGER = Party("stranger")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attestations": ()}, "is not attested by 2 validators"),
        ({"attestations": (MESSAGES["attestation 0"].id,)}, "is not attested by 2 validators"),
        ({"committed": 2}, "it divides by 2, 3 commitments are pinned"),
        ({"committed": 4}, "it divides by 4, 3 commitments are pinned"),
    ],
)
def test_a_void_result_halts_the_run(changes: dict[str, object], reason: str) -> None:
    node = Node(STRANGER).hear([*until("attestation 2"), changed("result", COORDINATOR, **changes)])
    assert node.run.halted is not None
    assert reason in node.run.halted
    assert node.round.result is None


def accepted(**changes: object) -> tuple[m.Accepted, ...]:
    body = MESSAGES["result"].body
    assert isinstance(body, m.Result)
    first, *others = body.accepted
    return (msgspec.structs.replace(first, **changes), *others)


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (accepted(level=0), "level 0 of"),
        (accepted(level=-1), "level -1 of"),
        (accepted(level=5), "level 5 of"),
        (accepted(delta=BlobRef(Digest("1" * 64), EXAMPLES.deltas[0].size)), "is not the one that it revealed"),
        (accepted(delta=BlobRef(EXAMPLES.deltas[0].sha256, 1)), "is not the one that it revealed"),
        (accepted()[::-1], "its list is not sorted"),
        ((*accepted()[:1], *accepted()[:1]), "or repeats a worker"),
        ((msgspec.structs.replace(accepted()[0], worker=WORKERS[2].pubkey, level=1),), "is not attested by 2 validators"),
        ((msgspec.structs.replace(accepted()[0], worker=STRANGER.pubkey),), "is not attested by 2 validators"),
    ],
)
def test_a_result_with_a_wrong_item_halts_the_run(items: tuple[m.Accepted, ...], reason: str) -> None:
    node = Node(STRANGER).hear([*until("attestation 2"), changed("result", COORDINATOR, accepted=items)])
    assert node.run.halted is not None
    assert reason in node.run.halted


def test_an_empty_result_keeps_the_state() -> None:
    empty = changed("result", COORDINATOR, accepted=(), attestations=(), state_id=EXAMPLES.state_id)
    node = Node(STRANGER).hear([*until("announcement"), empty])
    assert (node.run.round, node.run.halted) == (1, None)
    assert phase(node.round, node.run) is RoundPhase.ABORTED
    assert node.run.missed == {party.pubkey: 1 for party in WORKERS}
    moved = changed("result", COORDINATOR, accepted=(), attestations=())
    node = Node(STRANGER).hear([*until("announcement"), moved])
    assert node.run.halted is not None
    assert "uses no work but changes the state" in node.run.halted


def test_a_result_waits_for_attestations_only_as_long_as_they_are_needed() -> None:
    first, second = Node(STRANGER).hear(until("attestation 0")), Node(STRANGER).hear(until("attestation 1"))
    for node in (first, second):
        node.hear([MESSAGES["result"]])
    assert first.run.round == 0
    assert second.run.round == 1
    assert first.hear([MESSAGES["attestation 2"]]).run.round == 1


def test_a_result_waits_for_receipt_and_reveals() -> None:
    for label in ("receipt", "reveal 0", "commitment 1"):
        node = Node(STRANGER).hear([message for message in ROUND if message.id != MESSAGES[label].id])
        assert (node.run.round, node.run.halted) == (0, None)
        assert node.hear([MESSAGES[label]]).run.round == 1


def test_a_confirmation_by_a_stranger_or_of_another_result_is_refused() -> None:
    refuses(until("result"), changed("confirmation 0", STRANGER), "by someone who takes no part")
    refuses(until("result"), changed("confirmation 0", VALIDATORS[0], result=NOWHERE), "of another result")


def test_a_second_confirmation_that_differs_is_refused() -> None:
    refuses(ROUND, changed("confirmation 0", VALIDATORS[0], state_id=Digest("1" * 64)), "contradicts what its author said before")
