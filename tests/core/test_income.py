"""The books of what came, and went, beside the rounds: tickets that were paid for and never claimed, on both sides, and a validator's shares."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import BuyTicket, Failed, FindTicket, Outcome, TicketBought, TicketFound
from nostrain.core.escrow.income import pending
from nostrain.core.escrow.rows import Income, Tickets
from nostrain.core.inputs import InvoicePaid, TicketRedeemed
from nostrain.core.rows import NodeState
from nostrain.core.transaction import Transaction
from nostrain.protocol.ledger import LedgerEntry
from nostrain.units import Digest, EventId, Msat
from tests.core.actors import EXAMPLES, MESSAGES, ROUND, Node, until
from tests.core.leads import COLLECT_BY
from tests.core.test_patience import LENGTH, came_to_nothing, worker
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS

FEE, ID = EXAMPLES.manifest.settlement.fee_msat, EXAMPLES.round_id
ONE, OTHER = Digest("aa" * 32), Digest("bb" * 32)
PAYER = WORKERS[0].pubkey


def seller() -> Node:
    """The coordinator while its round is open."""
    return Node(COORDINATOR, "coordinator").hear(until("announcement")).at(20)


def ticket(index: int, payment_hash: Digest, announcement: EventId = ID, node_id: str = "02ours") -> InvoicePaid:
    return InvoicePaid(node_id, index, payment_hash, FEE, announcement, PAYER)


def claim(payment_hash: Digest) -> TicketRedeemed:
    return TicketRedeemed(ID, PAYER, 1, Digest("cc" * 32), payment_hash)


def kinds(entries: tuple[LedgerEntry, ...]) -> list[tuple[str, str]]:
    return [(entry.kind, entry.payment_hash) for entry in entries]


# --- the seller ----------------------------------------------------------------------------------------------------------


def test_a_ticket_that_nobody_claims_is_booked_when_nobody_can_any_more() -> None:
    there = seller()
    assert there.take(ticket(1, ONE)).entries == ()
    assert there.at(COLLECT_BY - START).take(ticket(1, ONE)).entries == ()
    assert pending(Transaction(there.state, there.now), ID)
    there.now = type(there.now)(COLLECT_BY + 1)
    (entry,) = there.take(ticket(2, OTHER)).entries[:1]
    assert (entry.kind, entry.sum_msat, entry.change_msat, entry.party, entry.round) == ("ticket_unclaimed", FEE, FEE, PAYER, 1)
    assert not pending(Transaction(there.state, there.now), ID)


@pytest.mark.parametrize("claimed_first", [False, True])
def test_one_that_is_claimed_is_sold_whatever_is_heard_first(claimed_first: bool) -> None:
    there = seller()
    inputs = [claim(ONE), ticket(1, ONE)] if claimed_first else [ticket(1, ONE), claim(ONE)]
    entries = [entry for input_ in inputs for entry in there.take(input_).entries]
    entries += there.past(COLLECT_BY).take(ticket(1, ONE)).entries
    assert kinds(tuple(entries)) == [("ticket_sold", ONE)]


def test_who_pays_twice_and_claims_once_is_booked_twice() -> None:
    there = seller()
    entries = [entry for input_ in (ticket(1, ONE), ticket(2, OTHER), claim(OTHER)) for entry in there.take(input_).entries]
    there.now = type(there.now)(COLLECT_BY + 1)
    entries += there.take(claim(OTHER)).entries
    assert kinds(tuple(entries)) == [("ticket_sold", OTHER), ("ticket_unclaimed", ONE)]
    assert there.take(claim(ONE)).entries == ()
    assert there.row(f"tickets/{ID}", Tickets).unclaimed == (ONE,)


def test_one_of_a_round_that_is_forgotten_is_booked_at_once() -> None:
    (entry,) = seller().take(ticket(7, ONE, EventId("ee" * 32))).entries
    assert (entry.kind, entry.announcement, entry.round) == ("ticket_unclaimed", "ee" * 32, 0)


def test_what_was_told_before_is_not_told_again_but_another_node_counts_from_one() -> None:
    there, gone = seller(), EventId("ee" * 32)
    assert len(there.take(ticket(7, ONE, gone)).entries) == 1
    assert there.take(ticket(7, ONE, gone)).entries == there.take(ticket(6, OTHER, gone)).entries == ()
    assert len(there.take(ticket(1, OTHER, gone, "02another")).entries) == 1
    assert there.row("income", Income) == Income("02another", 1)


# --- the buyer -----------------------------------------------------------------------------------------------------------


def given_up(ends: Outcome | None = None) -> tuple[Node, list[FindTicket]]:
    """A worker whose round is over before its ticket came."""
    node = worker().hear([MESSAGES["announcement"]])
    (effect,) = node.asks(BuyTicket)
    if ends is not None:
        node.ends(effect, ends)
    node.at(LENGTH).hear([came_to_nothing(MESSAGES["announcement"], 0)])
    assert not node.asks(BuyTicket)
    return node, node.asks(FindTicket)


@pytest.mark.parametrize("ends", [None, Failed("refused with HTTP 410")])
@pytest.mark.parametrize(("claimed", "kind"), [(False, "ticket_lost"), (True, "ticket_bought")])
def test_a_ticket_that_was_given_up_is_looked_for_and_booked_if_it_is_paid(ends: Failed | None, claimed: bool, kind: str) -> None:
    node, (effect,) = given_up(ends)
    assert (effect.announcement, effect.round, effect.run) == (ID, 1, node.run.id)
    entries = node.ends(effect, TicketFound(ONE, Msat(40), claimed)).entries
    assert [(one.kind, one.change_msat, one.payment_hash, one.party) for one in entries] == [(kind, -40, ONE, COORDINATOR.pubkey)]
    assert not node.asks(FindTicket)
    assert len(node.told("tickets_lost")) == (not claimed)


def test_one_that_was_never_paid_is_not_in_the_books() -> None:
    node, (effect,) = given_up()
    assert node.ends(effect, TicketFound(None, Msat(0), claimed=False)).entries == ()


def test_it_is_looked_for_when_the_round_is_forgotten_too() -> None:
    node, (effect,) = given_up()
    rows = {key: row for key, row in node.state.rows.items() if key not in (f"round/{ID}", f"work/{ID}")}
    node.state = NodeState(rows)
    assert len(node.ends(effect, TicketFound(ONE, Msat(40), claimed=False)).entries) == 1


def test_a_ticket_that_came_is_not_looked_for() -> None:
    _, asked = given_up(TicketBought(Digest("11" * 32), ONE))
    assert asked == []


# --- a validator ---------------------------------------------------------------------------------------------------------


def test_what_a_validator_receives_of_the_fees_is_in_its_books() -> None:
    there = Node(VALIDATORS[0], "validator").hear(ROUND)
    share = InvoicePaid("02ours", 3, ONE, Msat(400_000), run=there.run.id[:16])
    (entry,) = there.take(share).entries
    assert (entry.kind, entry.change_msat, entry.party) == ("share_received", 400_000, COORDINATOR.pubkey)
    assert (entry.run, entry.round, entry.announcement) == (there.run.id, 1, ID)
    assert there.take(share).entries == ()


def test_what_comes_for_an_earlier_run_is_not_of_this_one() -> None:
    there = Node(VALIDATORS[0], "validator").hear(until("manifest"))
    for index, run in enumerate(("ab" * 8, ""), start=1):
        (entry,) = there.take(InvoicePaid("02ours", index, ONE, Msat(5), run=run)).entries
        assert (entry.kind, entry.run, entry.round) == ("share_received", "", 0)
    (entry,) = there.take(InvoicePaid("02ours", 9, ONE, Msat(5), run=there.run.id[:16])).entries
    assert (entry.run, entry.round, entry.announcement) == (there.run.id, 0, "")
    assert msgspec.json.decode(msgspec.json.encode(entry), type=LedgerEntry) == entry
