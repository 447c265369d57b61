"""A coordinator pays the validators' shares: when, to whom, never twice, and never to somebody who was caught."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import (
    Credentials,
    CredentialsRead,
    Failed,
    FetchInvoice,
    InvoiceFetched,
    MakeOffer,
    OfferMade,
    PayEnded,
    PayInvoice,
)
from nostrain.core.escrow.rows import Dues, Share, Split
from nostrain.core.escrow.share import AUDIT_ROUNDS, LEAST_MSAT, PAYABLE_MSAT, RETRY_S
from nostrain.core.escrow.split import complete
from nostrain.core.inputs import Received
from nostrain.core.node import next_deadline
from nostrain.core.rows import NodeState
from nostrain.core.tables import ShareState
from nostrain.core.timing import RELEASE_WAIT_S
from nostrain.protocol.messages import Enrolment, Payout
from nostrain.units import Digest, Msat, Pubkey, UnixTime
from nostrain.wire.bolt12_offer import encode_offer
from nostrain.wire.messages import payout_untrusted
from tests.core.actors import EXAMPLES, LIMITS, MESSAGES, ROUND, Node, changed, refuses, say, until
from tests.core.shares import EACH, KEYS, closed
from tests.docs.examples import COORDINATOR, START, VALIDATORS

ME = VALIDATORS[0]
PAID = InvoiceFetched("lni1example", Digest("77" * 32))
S = ShareState


def with_run(node: Node, **changes: object) -> Node:
    """The node with its run changed, and the policies run."""
    node.state = NodeState({**node.state.rows, "run": msgspec.structs.replace(node.run, **changes)})
    return node.at(node.now - START)


def dues(node: Node, key: Pubkey = ME.pubkey) -> Dues:
    return node.row(f"dues/{key}", Dues)


def payment(node: Node, number: int = 1, key: Pubkey = ME.pubkey) -> Share:
    return node.row(f"share/{key}/{number}", Share)


def ask(node: Node, kind: type, key: Pubkey = ME.pubkey) -> object:
    """The one effect of a type that is outstanding for a validator."""
    (found,) = [effect for effect in node.asks(kind) if key in effect.owner]
    return found


def finished() -> Node:
    """The run's last round is closed: everything that was earned can be paid."""
    return with_run(closed(), round=EXAMPLES.manifest.rounds)


def settled(number: int) -> Node:
    """The run goes on, `number` rounds after the example's."""
    return with_run(closed(), round=1 + number)


# --- when it is paid -----------------------------------------------------------------------------------------------------


def test_a_round_is_credited_once_and_after_its_audit() -> None:
    assert not closed().has(f"dues/{ME.pubkey}")
    assert not settled(AUDIT_ROUNDS - 1).has(f"dues/{ME.pubkey}")
    node = settled(AUDIT_ROUNDS)
    assert {dues(node, key).due_msat for key in KEYS} == {EACH}
    node.hear(ROUND).at(100)
    assert {dues(node, key).due_msat for key in KEYS} == {EACH}
    assert not node.asks(FetchInvoice), "it is not worth a payment yet"


def test_a_verdict_on_its_way_is_waited_for() -> None:
    late = MESSAGES["verdict 2"]
    node = Node(COORDINATOR, "coordinator").hear(message for message in ROUND if message.id != late.id)
    with_run(node, round=EXAMPLES.manifest.rounds)
    assert not complete(node.run, node.round)
    assert not node.has(f"dues/{ME.pubkey}")
    node.hear([late])
    assert complete(node.run, node.round)
    assert {dues(node, key).due_msat + payment(node, key=key).amount_msat for key in KEYS} == {EACH}


def test_a_verdict_that_never_comes_is_not_waited_for_for_ever() -> None:
    node = Node(COORDINATOR, "coordinator").hear(message for message in ROUND if message.id != MESSAGES["verdict 2"].id)
    with_run(node, round=EXAMPLES.manifest.rounds)
    limit = LIMITS.attest_by + EXAMPLES.manifest.timing.grace_s + RELEASE_WAIT_S
    assert next_deadline(node.state, UnixTime(limit)) == limit + 1
    node.past(limit)
    assert {key for key in KEYS if node.has(f"dues/{key}")} == set(KEYS[:2])


def test_only_the_coordinator_pays() -> None:
    node = with_run(Node(ME, "validator").hear(ROUND), round=EXAMPLES.manifest.rounds)
    assert not [key for key in node.state.rows if key.startswith(("dues/", "share/"))]


def test_too_little_is_saved_up_until_the_run_ends() -> None:
    assert EACH < PAYABLE_MSAT
    assert not settled(AUDIT_ROUNDS).asks(FetchInvoice)
    assert {effect.amount_msat for effect in finished().asks(FetchInvoice)} == {EACH}
    node = closed()
    node.state = NodeState({**node.state.rows, f"dues/{ME.pubkey}": Dues(ME.pubkey, through=1, due_msat=PAYABLE_MSAT)})
    node.at(100)
    assert [effect.amount_msat for effect in node.asks(FetchInvoice)] == [PAYABLE_MSAT]


def test_less_than_a_sat_stays_with_the_coordinator() -> None:
    node = closed()
    node.state = NodeState(
        {**node.state.rows, f"dues/{ME.pubkey}": Dues(ME.pubkey, through=1, due_msat=Msat(LEAST_MSAT - 1)), "split": Split(1)}
    )
    with_run(node, round=EXAMPLES.manifest.rounds)
    assert not [effect for effect in node.asks(FetchInvoice) if ME.pubkey in effect.owner]


def test_an_invoice_is_fetched_written_down_and_paid_once() -> None:
    node = finished()
    fetch = ask(node, FetchInvoice)
    assert isinstance(fetch, FetchInvoice)
    assert (fetch.offer, fetch.amount_msat) == (ME.payout().bolt12, EACH)
    assert (dues(node).due_msat, payment(node).state) == (0, S.FETCHING)
    node.ends(fetch, PAID)
    row, pay = payment(node), ask(node, PayInvoice)
    assert (row.state, row.bolt12, row.payment_hash) == (S.PAYING, PAID.bolt12, PAID.payment_hash)
    assert isinstance(pay, PayInvoice)
    assert (pay.bolt12, pay.payment_hash, pay.amount_msat) == (PAID.bolt12, PAID.payment_hash, EACH)
    node.ends(pay, PayEnded("42" * 32))
    node.ends(pay, PayEnded("42" * 32))
    node.at(10_000)
    assert (payment(node).state, dues(node).paid_msat, dues(node).due_msat) == (S.PAID, EACH, 0)
    assert not [effect for effect in node.asks(FetchInvoice) + node.asks(PayInvoice) if ME.pubkey in effect.owner]  # type: ignore[operator]
    assert "paid 25000 msat" in node.told("shares_paid")[0]


def test_what_failed_for_certain_is_owed_again_and_tried_later_with_a_new_invoice() -> None:
    node = finished()
    node.ends(ask(node, FetchInvoice), PAID)  # type: ignore[arg-type]
    node.ends(ask(node, PayInvoice), PayEnded(None))  # type: ignore[arg-type]
    assert (payment(node).state, dues(node).due_msat, dues(node).paid_msat) == (S.FAILED, EACH, 0)
    assert not [effect for effect in node.asks(FetchInvoice) if ME.pubkey in effect.owner]
    deadline = next_deadline(node.state, node.now)
    assert deadline is not None
    assert deadline <= node.now + RETRY_S
    node.at(node.now - START + RETRY_S)
    again = ask(node, FetchInvoice)
    assert isinstance(again, FetchInvoice)
    assert again.owner == f"share/{ME.pubkey}/2"
    assert not node.has(f"share/{ME.pubkey}/1"), "the last payment's row is kept, not all"
    node.ends(again, InvoiceFetched("lni1other", Digest("78" * 32)))
    node.ends(ask(node, PayInvoice), PayEnded("42" * 32))  # type: ignore[arg-type]
    assert dues(node).paid_msat == EACH


def test_a_refused_invoice_is_asked_for_again_later() -> None:
    node = finished()
    node.ends(ask(node, FetchInvoice), Failed("offer: has expired"))  # type: ignore[arg-type]
    assert (payment(node).state, dues(node).due_msat) == (S.FAILED, EACH)
    assert "has expired" in node.told("shares_failed")[0]
    assert [effect for effect in node.at(node.now - START + RETRY_S).asks(FetchInvoice) if ME.pubkey in effect.owner]


# --- who is paid ---------------------------------------------------------------------------------------------------------


def test_a_validator_that_was_caught_is_not_paid() -> None:
    node = with_run(closed(), faulty={ME.pubkey: "it lied"}, round=EXAMPLES.manifest.rounds)
    assert {effect.owner.split("/")[1] for effect in node.asks(FetchInvoice)} == set(KEYS[1:])
    assert dues(node).due_msat == EACH


def test_one_that_is_caught_while_its_invoice_is_fetched_is_not_paid_but_a_payment_under_way_is_followed() -> None:
    node = finished()
    other = ask(node, FetchInvoice, KEYS[1])
    node.ends(other, PAID)  # type: ignore[arg-type]
    with_run(node, faulty={ME.pubkey: "it lied", KEYS[1]: "so did it"})
    assert payment(node).state is S.FAILED
    assert dues(node).due_msat == EACH
    assert {effect.owner.split("/")[1] for effect in node.asks(FetchInvoice)} == {KEYS[2]}
    pay = ask(node, PayInvoice, KEYS[1])
    node.ends(pay, PayEnded("42" * 32))  # type: ignore[arg-type]
    assert dues(node, KEYS[1]).paid_msat == EACH


def test_nothing_is_begun_in_a_run_that_was_halted() -> None:
    assert not with_run(closed(), halted="forked", round=EXAMPLES.manifest.rounds).asks(FetchInvoice)


def enrolled(offer: Payout | None, after: int = 60) -> object:
    body = MESSAGES["enrolment validator 0"].body
    assert isinstance(body, Enrolment)
    return say(ME, msgspec.structs.replace(body, offer=offer), after)


def test_the_newest_enrolment_says_where_to_pay() -> None:
    node = finished()
    before = ask(node, FetchInvoice)
    other = VALIDATORS[1].payout()
    node.take(Received(enrolled(other)))  # type: ignore[arg-type]
    after = ask(node, FetchInvoice)
    assert isinstance(before, FetchInvoice)
    assert isinstance(after, FetchInvoice)
    assert (before.offer, after.offer) == (ME.payout().bolt12, other.bolt12)
    node.take(Received(enrolled(None, 61)))  # type: ignore[arg-type]
    assert payment(node).state is S.FAILED
    node.take(Received(enrolled(other, 62)))  # type: ignore[arg-type]
    assert ask(node, FetchInvoice)


def test_an_offer_on_another_network_is_refused() -> None:
    wrong = changed("enrolment validator 0", ME, offer=payout_untrusted(encode_offer("bitcoin", "shares", "02" + ME.oracle)))
    refuses(until("manifest"), wrong, "its offer is not for regtest")


# --- a validator's side --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "offer"), [(OfferMade(ME.payout()), ME.payout()), (Failed("the offer was disabled"), None)], ids=["made", "not made"]
)
def test_a_validator_enrols_with_its_offer(outcome: OfferMade | Failed, offer: Payout | None) -> None:
    node = Node(ME, "validator").hear(until("manifest"))
    assert not node.asks(Credentials)
    node.ends(node.asked(MakeOffer), outcome)
    credentials = CredentialsRead(ME.oracle, ME.endorsement(EXAMPLES.run), ME.chain_link(EXAMPLES.run, 0))
    node.ends(node.asked(Credentials), credentials)
    (said,) = [message.body for message in node.speak() if isinstance(message.body, Enrolment)]
    assert said.offer == offer
    assert bool(node.told("offers_not_made")) is (offer is None)


def test_without_a_node_on_the_runs_network_a_validator_enrols_without_an_offer() -> None:
    for changes in ({"pays": False}, {"network": "bitcoin"}):
        node = Node(ME, "validator")
        node.identity = msgspec.structs.replace(node.identity, **changes)
        node.state = NodeState({**node.state.rows, "node": node.identity})
        node.hear(until("manifest"))
        assert not node.asks(MakeOffer)
        assert node.asks(Credentials)
