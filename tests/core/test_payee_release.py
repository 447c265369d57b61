"""The payee's side of an escrow once its levels are held: when it settles, when it waits, and when it lets go."""

from __future__ import annotations

import pytest

from nostrain.core.effects import Cancel, Failed, Ok, Settle, Unlock, Unlocked
from nostrain.core.escrow.rows import Payee
from nostrain.core.inputs import Boot, HoldChanged, Received
from nostrain.core.tables import PayeeState
from nostrain.core.timing import CATCH_UP_S, acknowledged_by
from nostrain.protocol.messages import Offer
from nostrain.units import BlockHeight
from tests.core.actors import EXAMPLES, HEIGHT, LABELS, MESSAGES, ROUND, Node, changed
from tests.core.payees import KEY, MSAT, RELEASE_BY, WORKER, Y, attested, held, releasable, row, states
from tests.docs.examples import COORDINATOR, START


def test_money_waits_for_attestations_that_are_on_their_way_and_no_longer() -> None:
    node = attested(0).past(RELEASE_BY - 1)
    assert states(node) == [Y.HELD] * 4
    late = node.hear([MESSAGES["attestation 1"]])
    assert states(late) == [Y.RELEASABLE] * 4
    node = attested(0).past(RELEASE_BY)
    assert states(node) == [Y.CANCELLED] * 4
    node.hear([MESSAGES["attestation 1"]])
    assert not node.asks(Unlock)


def test_when_all_attested_and_the_round_is_closed_nothing_is_waited_for() -> None:
    node = attested(0, node=held())
    for message in ROUND[LABELS.index("attestation 0") :]:
        if message.id != MESSAGES["attestation 1"].id:
            node.take(Received(message))
    assert states(node) == [Y.RELEASABLE] * 4, "two of three are enough"


def closed_empty(*validators: int, acknowledged: tuple[int, ...]) -> Node:
    """The coordinator closed the round without using any work; these acknowledgements and attestations have come so far."""
    heard = LABELS[LABELS.index("commitment 0") : LABELS.index("attestation 0")]
    labels = [label for label in heard if not label.startswith(("acknowledgement", "verdict"))]
    node = held().hear(MESSAGES[label] for label in labels)
    node.hear(MESSAGES[f"acknowledgement {n}"] for n in acknowledged)
    node.hear(MESSAGES[f"attestation {n}"] for n in validators)
    return node.hear([changed("result", COORDINATOR, 50, accepted=(), attestations=(), state_id=EXAMPLES.state_id)])


def test_an_early_empty_result_does_not_let_the_money_go_while_others_may_attest() -> None:
    """Of three validators one is known to have acknowledged, and has attested; the words of the others are on their way."""
    node = closed_empty(0, acknowledged=(0,))
    assert states(node) == [Y.HELD] * 4
    node.hear([MESSAGES["acknowledgement 1"], MESSAGES["attestation 1"]])
    assert states(node) == [Y.RELEASABLE] * 4


def test_of_whom_no_acknowledgement_came_none_is_waited_for() -> None:
    node = closed_empty(0, acknowledged=(0,)).at(acknowledged_by(held().round) - START)
    assert states(node) == [Y.HELD] * 4
    node.past(acknowledged_by(node.round))
    assert states(node) == [Y.CANCELLED] * 4


def test_after_a_start_what_was_missed_is_heard_before_money_is_let_go() -> None:
    node = attested(0)
    node.now = EXAMPLES.deadlines.attest_by + 7_200  # type: ignore[assignment]
    node.take(Boot(node.identity))
    assert states(node) == [Y.HELD] * 4
    woken = node.now
    node.at(woken + CATCH_UP_S - START)
    assert states(node) == [Y.HELD] * 4
    heard = Node(WORKER, "worker")
    heard.state, heard.now = node.state, node.now
    assert states(heard.hear([MESSAGES["attestation 1"]])) == [Y.RELEASABLE] * 4
    node.at(woken + CATCH_UP_S + 1 - START)
    assert states(node) == [Y.CANCELLED] * 4


def test_a_lock_that_two_attestations_do_not_open_is_tried_with_the_third() -> None:
    node = attested(0, 1)
    for effect in node.asks(Unlock):
        node.ends(effect, Failed("share of oracle 1 does not lie on the committed polynomial"))
    assert states(node) == [Y.RELEASABLE] * 4
    assert not node.asks(Unlock)
    node.hear([MESSAGES["attestation 2"]])
    assert len(node.asks(Unlock)) == 4
    assert all(len(effect.scalars) == 3 for effect in node.asks(Unlock))
    node.ends(node.asked(Unlock, "unlock:0"), Unlocked("22" * 32))
    node.ends(node.asked(Unlock, "unlock:1"), Failed("still not"))
    assert states(node)[:2] == [Y.SETTLING, Y.RELEASABLE]
    node.hear([MESSAGES["result"]])
    assert states(node)[1] is Y.CANCELLED, "nobody else will attest"


def test_an_attestation_that_arrives_while_the_lock_is_tried_is_tried_next() -> None:
    node = attested(0, 1)
    effect = node.asked(Unlock, "unlock:0")
    node.hear([MESSAGES["attestation 2"]])
    assert node.asked(Unlock, "unlock:0") == effect
    node.ends(effect, Failed("not with these"))
    assert len(node.asked(Unlock, "unlock:0").scalars) == 3


def test_levels_are_let_go_one_by_one() -> None:
    """Withdrawing what is done for level 1 leaves level 10 and its like alone."""
    node = releasable()
    settle = {effect.name for effect in node.asks(Settle)}
    lock = row(node).levels[1].lock
    assert lock is not None
    node.take(HoldChanged(lock.payment_hash, "cancelled", MSAT))
    assert {effect.name for effect in node.asks(Settle)} == settle - {"settle:1"}


@pytest.mark.parametrize("stage", [held, lambda: attested(0, 1)])
def test_close_to_its_expiry_an_htlc_is_cancelled_and_never_settled(stage) -> None:  # type: ignore[no-untyped-def]
    node = stage()
    node.block(HEIGHT + 80 - 25)
    assert Y.CANCELLED not in states(node)
    node.block(HEIGHT + 80 - 24)
    assert states(node) == [Y.CANCELLED] * 4
    assert len(node.asks(Cancel)) == 4
    assert not node.asks(Unlock)
    node.hear([MESSAGES["attestation 2"]])
    assert not node.asks(Settle)


@pytest.mark.parametrize(("outcome", "end"), [(Ok(), Y.CANCELLED), (Failed("the invoice is paid"), Y.SETTLED)])
def test_a_settlement_that_hangs_until_the_expiry_ends_as_our_node_says(outcome: Ok | Failed, end: PayeeState) -> None:
    node = releasable().block(HEIGHT + 80 - 24)
    assert not node.asks(Settle)
    assert states(node) == [Y.SETTLING] * 4
    for effect in node.asks(Cancel):
        node.ends(effect, outcome)
    assert states(node) == [end] * 4


def test_a_settlement_that_our_node_refuses_is_a_level_lost_and_no_crash() -> None:
    node = releasable()
    node.ends(node.asked(Settle, "settle:0"), Failed("no accepted hold invoice has that preimage"))
    assert states(node)[0] is Y.CANCELLED
    assert node.told("levels_lost")


def test_blocks_may_go_back() -> None:
    node = held().block(HEIGHT + 10).block(HEIGHT)
    assert states(node) == [Y.HELD] * 4
    assert node.block(BlockHeight(0)).row(KEY, Payee) == row(node)
    assert isinstance(MESSAGES["offer"].body, Offer)
