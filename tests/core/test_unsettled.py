"""What is outstanding with our Lightning node: all of it is named, and nothing once it is over."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import BuyTicket, Failed, FindTicket, MakeOffer, TicketFound
from nostrain.core.escrow.rows import Dues, Payee, PayeeLevel, Payer, PayerLevel, Share, Split
from nostrain.core.inputs import Boot
from nostrain.core.rows import NodeState, Row
from nostrain.core.tables import OpeningState, PayeeState, PayerState, ShareState, WithdrawalState
from nostrain.core.treasury.opening_rows import Opening
from nostrain.core.treasury.unsettled import unsettled
from nostrain.core.treasury.withdrawal_rows import Withdrawal
from nostrain.units import EventId, Msat, UnixTime
from tests.core.actors import EXAMPLES, Node, until
from tests.docs.examples import COORDINATOR, VALIDATORS, WORKERS

ROUND, WORKER, VALIDATOR = EXAMPLES.round_id, WORKERS[0].pubkey, VALIDATORS[0].pubkey
OPENING = Opening(WORKER, "02", "", Msat(70_000_000), ("aa:0",), UnixTime(1))
DUES = Dues(VALIDATOR, due_msat=Msat(3_000), payments=1)
SHARE = Share(VALIDATOR, Msat(4_000))


def with_row(key: str, row: Row) -> NodeState:
    """Somebody who leads nothing, and that row."""
    return NodeState({**Node(WORKERS[0], "worker").state.rows, key: row})


def payer(state: PayerState) -> Payer:
    return Payer(ROUND, WORKER, levels=(PayerLevel(PayerState.PAID), PayerLevel(state)))


def payee(state: PayeeState) -> Payee:
    return Payee(ROUND, WORKER, levels=(PayeeLevel(PayeeState.CANCELLED), PayeeLevel(state)))


def withdrawal(state: WithdrawalState) -> Withdrawal:
    return Withdrawal(3, "bc1qours", state, UnixTime(1))


@pytest.mark.parametrize(
    ("key", "row", "words"),
    [
        (f"payer/{ROUND}/{WORKER}", payer(PayerState.PAYING), f"1 levels that are locked for worker {WORKER[:8]}"),
        (f"payer/{ROUND}/{WORKER}", payer(PayerState.FAILED), None),
        *((f"payee/{ROUND}", payee(state), "1 levels of ours") for state in (PayeeState.OFFERED, PayeeState.INVOICED, PayeeState.SETTLING)),
        *((f"payee/{ROUND}", payee(state), None) for state in (PayeeState.SETTLED, PayeeState.CANCELLED)),
        (f"opening/{WORKER}", OPENING, "a channel of 70000 sat"),
        (f"opening/{WORKER}", msgspec.structs.replace(OPENING, state=OpeningState.FAILED), None),
        ("withdrawal", withdrawal(WithdrawalState.SENDING), "withdrawal 3 to bc1qours (sending)"),
        ("withdrawal", withdrawal(WithdrawalState.SENT), None),
        (f"dues/{VALIDATOR}", DUES, f"3 sat of the fees for validator {VALIDATOR[:8]}"),
        (f"dues/{VALIDATOR}", msgspec.structs.replace(DUES, due_msat=Msat(999)), None),
    ],
)
def test_what_only_the_node_can_end_is_named_until_it_has(key: str, row: Row, words: str | None) -> None:
    found = unsettled(with_row(key, row))
    assert found == () if words is None else (len(found) == 1 and words in found[0])


@pytest.mark.parametrize(("state", "sat"), [(ShareState.PAYING, 7), (ShareState.FETCHING, 7), (ShareState.PAID, 3), (ShareState.FAILED, 3)])
def test_a_payment_under_way_counts_with_what_is_due(state: ShareState, sat: int) -> None:
    rows = with_row(f"dues/{VALIDATOR}", DUES).rows
    share = msgspec.structs.replace(SHARE, state=state)
    (found,) = unsettled(NodeState({**rows, f"share/{VALIDATOR}/1": share}))
    assert found.startswith(f"{sat} sat of the fees")


def test_a_ticket_that_is_asked_for_may_be_paid() -> None:
    there = Node(WORKERS[0], "worker").hear(until("announcement")).ready().at(6)
    (effect,) = there.asks(BuyTicket)
    assert unsettled(there.state) == (f"a ticket that may be paid (round {ROUND[:8]})",)
    there.ends(effect, Failed("refused with HTTP 410"))
    assert unsettled(there.state) == (f"a ticket that may be paid (round {ROUND[:8]})",), "it is still to be found out"
    there.ends(there.asked(FindTicket), TicketFound(None, Msat(0), claimed=False))
    assert unsettled(there.state) == ()


def test_a_validator_that_asks_its_node_for_an_offer() -> None:
    there = Node(VALIDATORS[0], "validator").hear(until("manifest"))
    assert there.asks(MakeOffer)
    assert unsettled(there.state) == ("the offer to which our shares of the fees are to be paid",)


def test_a_coordinator_of_a_run_that_pays_until_all_shares_are_counted() -> None:
    there = Node(COORDINATOR, "coordinator").hear(until("enrolment worker 2"))
    assert unsettled(there.state) == (f"run {there.run.id[:8]}, which we lead, pays",)
    over = msgspec.structs.replace(there.run, round=there.run.manifest.rounds)
    assert unsettled(NodeState({**there.state.rows, "run": over})) != ()
    assert unsettled(NodeState({**there.state.rows, "run": over, "split": Split(over.round)})) == ()
    halted = msgspec.structs.replace(there.run, halted="it spoke twice")
    assert unsettled(NodeState({**there.state.rows, "run": halted})) == ()


def test_others_do_not_owe_what_the_run_pays() -> None:
    there = Node(WORKERS[1], "worker").hear(until("enrolment worker 2"))
    there.take(Boot(there.identity))
    assert there.run.id != EventId("")
    assert unsettled(there.state) == ()
