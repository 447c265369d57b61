"""The payee's side of an escrow: what it checks before it works, when it settles, when it lets go."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import (
    Cancel,
    Failed,
    HoldInvoice,
    Invoiced,
    Ok,
    Settle,
    Unlock,
    Unlocked,
)
from nostrain.core.escrow.payee import locked
from nostrain.core.escrow.rows import Payee
from nostrain.core.inputs import Boot, HoldChanged, Received
from nostrain.core.rows import NodeState
from nostrain.core.tables import PayeeState
from nostrain.core.timing import CATCH_UP_S, acknowledged_by
from nostrain.core.transaction import Transaction
from nostrain.protocol.messages import Choice, Invoices, Offer
from nostrain.units import BlockHeight, Digest, Msat
from tests.core.actors import EXAMPLES, HEIGHT, LABELS, LIMITS, MESSAGES, ROUND, Node, changed
from tests.core.payees import (
    KEY,
    MSAT,
    RELEASE_BY,
    WORKER,
    Y,
    attested,
    checked,
    chosen,
    held,
    invoiced,
    payee,
    releasable,
    row,
    states,
)
from tests.docs.examples import COORDINATOR, START

# --- the way that it should go -------------------------------------------------------------------------------------------


def test_an_escrow_from_offer_to_settlement() -> None:
    node = chosen()
    choice = next(message.body for message in node.speak() if isinstance(message.body, Choice))
    assert choice.chosen == EXAMPLES.chosen
    node = invoiced()
    assert states(node) == [Y.INVOICED] * 4
    node = held()
    assert states(node) == [Y.HELD] * 4
    node = attested(0)
    assert not node.asks(Unlock)
    node = releasable()
    assert states(node) == [Y.SETTLING] * 4
    for effect in node.asks(Settle):
        node.ends(effect, Ok())
    assert states(node) == [Y.SETTLED] * 4
    assert node.told("levels_settled") == [f"level {n} settled: {MSAT} msat" for n in (1, 2, 3, 4)]


def test_the_invoices_are_sent_together_and_once() -> None:
    node = checked()
    first, *others = node.asks(HoldInvoice)
    node.ends(first, Invoiced("a"))
    assert not [message for message in node.speak() if isinstance(message.body, Invoices)]
    for effect in others:
        node.ends(effect, Invoiced("b"))
    (said,) = [message.body for message in node.speak() if isinstance(message.body, Invoices)]
    assert said.bolt11 == ("a", "b", "b", "b")
    assert node.at(9).speak() == []


def test_levels_beyond_what_was_attested_are_given_back() -> None:
    """The third worker's work was worth nothing: its levels are all cancelled as soon as all have attested and the round is closed."""
    node = held()
    for message in ROUND[LABELS.index("commitment 0") :]:
        node.take(Received(message))
    assert states(node) == [Y.RELEASABLE] * 4
    low = msgspec.structs.replace(row(node), levels=tuple(msgspec.structs.replace(level, state=Y.HELD) for level in row(node).levels))
    zeros = {}
    for one, (author, body) in node.round.attestations.items():
        items = tuple(msgspec.structs.replace(item, digits=(1, 1, 0, 0)) if item.payee == WORKER.pubkey else item for item in body.items)
        zeros[one] = (author, msgspec.structs.replace(body, items=items))
    rows = {key: kept for key, kept in node.state.rows.items() if not key.startswith("effect/")}
    node.state = NodeState({**rows, KEY: low, f"round/{EXAMPLES.round_id}": msgspec.structs.replace(node.round, attestations=zeros)})
    node.at(100)
    assert states(node) == [Y.RELEASABLE, Y.RELEASABLE, Y.CANCELLED, Y.CANCELLED]
    assert {effect.name for effect in node.asks(Cancel)} == {"cancel:2", "cancel:3"}


# --- held, and for how long ----------------------------------------------------------------------------------------------


def is_locked(node: Node) -> bool:
    return locked(Transaction(node.state, node.now), node.run, node.round)


def test_work_is_risked_only_when_every_level_is_held_and_long_enough() -> None:
    assert is_locked(held())
    assert not is_locked(payee())
    assert not is_locked(invoiced())
    for expiry in (HEIGHT, HEIGHT + 24, HEIGHT + 25):
        assert not is_locked(held(expiry))
    without_height = held()
    without_height.state = NodeState({key: kept for key, kept in without_height.state.rows.items() if key != "height"})
    assert not is_locked(without_height)
    partly = held()
    levels = (msgspec.structs.replace(row(partly).levels[0], state=Y.CANCELLED), *row(partly).levels[1:])
    partly.state = NodeState({**partly.state.rows, KEY: msgspec.structs.replace(row(partly), levels=levels)})
    assert not is_locked(partly)


@pytest.mark.parametrize(("amount", "kept"), [(MSAT - 1, False), (MSAT, True), (MSAT + 1, True)])
def test_less_than_was_promised_is_not_held(amount: int, kept: bool) -> None:
    node = invoiced()
    lock = row(node).levels[0].lock
    assert lock is not None
    node.held(lock.payment_hash, Msat(amount))
    assert (states(node)[0] is Y.HELD) is kept


def test_an_htlc_on_another_hash_is_none_of_ours() -> None:
    node = invoiced()
    before = node.state.rows
    node.held(Digest("0" * 64), MSAT)
    assert node.state.rows == before


def test_what_is_not_held_in_time_is_cancelled() -> None:
    node = invoiced().past(LIMITS.commit_by)
    assert states(node) == [Y.CANCELLED] * 4
    assert len(node.asks(Cancel)) == 4
    lock = row(node).levels[0].lock
    assert lock is not None
    node.held(lock.payment_hash, MSAT)
    assert states(node)[0] is Y.CANCELLED


def test_before_the_invoices_are_sent_there_is_nothing_to_cancel() -> None:
    node = checked().past(LIMITS.commit_by)
    assert states(node) == [Y.CANCELLED] * 4
    assert not node.asks(Cancel)
    assert not node.asks(HoldInvoice)


def test_an_invoice_that_our_node_will_not_make_ends_the_level_alone() -> None:
    node = checked()
    effect = node.asked(HoldInvoice, "invoice:2")
    node.ends(effect, Failed("the hash is in use"))
    assert states(node) == [Y.CHECKED, Y.CHECKED, Y.CANCELLED, Y.CHECKED]
    assert not node.asks(Cancel)


def test_an_htlc_that_our_node_lost_is_gone() -> None:
    node = held()
    lock = row(node).levels[1].lock
    assert lock is not None
    node.take(HoldChanged(lock.payment_hash, "cancelled", MSAT))
    assert states(node) == [Y.HELD, Y.CANCELLED, Y.HELD, Y.HELD]


def test_whom_the_receipt_does_not_pin_gives_the_money_back_at_once() -> None:
    node = held().hear([MESSAGES[f"commitment {n}"] for n in range(3)])
    pins = tuple(sorted(MESSAGES[f"commitment {n}"].id for n in (1, 2)))
    node.hear([changed("receipt", COORDINATOR, LIMITS.commit_by - START, commitments=pins)])
    assert states(node) == [Y.CANCELLED] * 4
    assert len(node.asks(Cancel)) == 4


# --- release -------------------------------------------------------------------------------------------------------------


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
