"""The validators' shares: who has earned what, when it is paid, and that nothing is paid twice or to somebody who was caught."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from nostrain.core.escrow.split import complete, counted, pool, shares
from nostrain.core.inputs import Received
from nostrain.core.node import next_deadline
from nostrain.core.rows import NodeState, Round, Run
from nostrain.core.tables import ShareState
from nostrain.core.timing import RELEASE_WAIT_S
from nostrain.protocol.messages import Enrolment, Payout, Result
from nostrain.units import PPM, Digest, Msat, Ppm, Pubkey, UnixTime
from nostrain.wire.bolt12_offer import encode_offer
from nostrain.wire.messages import payout_untrusted
from tests.core.actors import EXAMPLES, LIMITS, MESSAGES, ROUND, Node, changed, refuses, say, until
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS

ME = VALIDATORS[0]
KEYS = tuple(party.pubkey for party in VALIDATORS)
FEE, LEVELS = EXAMPLES.manifest.settlement.fee_msat, 3
EACH = Msat(LEVELS * FEE // 2 // len(VALIDATORS))
PAID = InvoiceFetched("lni1example", Digest("77" * 32))
S = ShareState


def closed() -> Node:
    """The coordinator when the round of the examples is closed."""
    return Node(COORDINATOR, "coordinator").hear(ROUND)


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


# --- what is earned ------------------------------------------------------------------------------------------------------


def test_the_examples_validators_share_half_of_three_fees() -> None:
    node = closed()
    assert pool(node.run, node.round) == LEVELS * FEE // 2
    assert shares(node.run, node.round) == dict.fromkeys(KEYS, EACH)


def test_strangers_compute_what_the_coordinator_does_in_any_order() -> None:
    backwards = Node(WORKERS[0]).hear(reversed(ROUND))
    assert shares(backwards.run, backwards.round) == shares(closed().run, closed().round)


def altered(**changes: object) -> tuple[Run, Round]:
    node = closed()
    result = node.round.result
    assert result is not None
    body = msgspec.structs.replace(result[1], **{name: value for name, value in changes.items() if hasattr(result[1], name)})
    rest = {name: value for name, value in changes.items() if not hasattr(body, name)}
    return node.run, msgspec.structs.replace(node.round, result=(result[0], body), **rest)


def test_only_verdicts_that_t_cited_attestations_name_count() -> None:
    cited = MESSAGES["result"].body
    assert isinstance(cited, Result)
    named = {event_id: author for event_id, (author, _) in closed().round.attestations.items()}
    two = tuple(event_id for event_id in cited.attestations if named[event_id] != KEYS[2])
    assert counted(*altered(attestations=two)) == KEYS[:2], "whose attestation is not cited has no share"
    assert shares(*altered(attestations=two)) == dict.fromkeys(KEYS[:2], Msat(LEVELS * FEE // 2 // 2)), "the pool stays whole"
    assert counted(*altered(attestations=two[:1])) == (), "one attestation is fewer than t"
    assert counted(*altered(attestations=())) == ()
    node = closed()
    unnamed = {
        event_id: (author, msgspec.structs.replace(body, verdicts=tuple(v for v in body.verdicts if v != MESSAGES["verdict 2"].id)))
        for event_id, (author, body) in node.round.attestations.items()
    }
    assert counted(*altered(attestations=cited.attestations)[:1], msgspec.structs.replace(node.round, attestations=unnamed)) == KEYS[:2]


def test_two_attestations_of_one_author_name_a_verdict_once() -> None:
    node = closed()
    (first,) = [body for author, body in node.round.attestations.values() if author == KEYS[0]]
    more = {**node.round.attestations, "ab" * 32: (KEYS[0], first)}
    result = node.round.result
    assert result is not None
    body = msgspec.structs.replace(result[1], attestations=tuple(event_id for event_id, (author, _) in more.items() if author == KEYS[0]))
    row = msgspec.structs.replace(node.round, attestations=more, result=(result[0], body))
    assert counted(node.run, row) == ()


def test_nothing_is_earned_without_a_result_a_fee_or_a_share() -> None:
    node = closed()
    assert shares(node.run, msgspec.structs.replace(node.round, result=None)) == {}
    for name in ("fee_msat", "validator_share_ppm"):
        settlement = msgspec.structs.replace(node.run.manifest.settlement, **{name: 0})
        run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(node.run.manifest, settlement=settlement))
        assert set(shares(run, node.round).values()) <= {0}
        assert pool(run, node.round) == 0


@given(fee=st.integers(0, 10**9), ppm=st.integers(0, PPM))
def test_the_shares_never_exceed_the_fees(fee: int, ppm: int) -> None:
    node = closed()
    settlement = msgspec.structs.replace(node.run.manifest.settlement, fee_msat=Msat(fee), validator_share_ppm=Ppm(ppm))
    run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(node.run.manifest, settlement=settlement))
    found = shares(run, node.round)
    assert len(set(found.values())) <= 1
    assert 0 <= sum(found.values()) <= pool(run, node.round) <= LEVELS * fee
    assert pool(run, node.round) - sum(found.values()) < len(KEYS)


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
