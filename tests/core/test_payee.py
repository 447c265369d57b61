"""The payee's side of an escrow until its levels are held: what it checks before it works, what is held, and for how long."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Cancel, Failed, HoldInvoice, Invoiced, Ok, Settle, Unlock
from nostrain.core.escrow.payee import locked
from nostrain.core.inputs import HoldChanged, Received
from nostrain.core.rows import NodeState
from nostrain.core.transaction import Transaction
from nostrain.protocol.messages import Choice, Invoices
from nostrain.units import Digest, Msat
from tests.core.actors import EXAMPLES, HEIGHT, LABELS, LIMITS, MESSAGES, ROUND, Node, changed
from tests.core.payees import KEY, MSAT, WORKER, Y, attested, checked, chosen, held, invoiced, payee, releasable, row, states
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
