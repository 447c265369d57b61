"""A clock that was once a year ahead, and was put right: nothing that it dated keeps the node's money waiting for a year."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Failed, FetchInvoice, OpenChannel, PrepareWithdrawal, SpliceOut, TransactionSent
from nostrain.core.escrow.rows import Dues
from nostrain.core.escrow.share import PAYABLE_MSAT, RETRY_S
from nostrain.core.node import next_deadline
from nostrain.core.rows import NodeState
from nostrain.core.timing import DAY_S
from nostrain.core.treasury.opening_rows import Openings
from nostrain.units import Msat, UnixTime
from tests.core.actors import Node
from tests.core.opening import FIRST, OPENED, OTHER, POLICY, enrols, funds, leader
from tests.core.shares import KEYS, closed
from tests.core.withdrawing import ABOVE, ENOUGH, KEEP, SPLICED, channel, coin, worker
from tests.core.withdrawing import funds as wallet
from tests.docs.examples import START, WORKERS

YEAR = 365 * DAY_S
TIGHT = msgspec.structs.replace(POLICY, day_msat=FIRST)


def rings_within_a_day(there: Node) -> bool:
    deadline = next_deadline(there.state, there.now)
    return deadline is not None and deadline <= there.now + DAY_S


def test_channels_of_the_wrong_year_count_for_one_day() -> None:
    there = leader(policy=TIGHT).at(YEAR)
    there.ends(there.asked(OpenChannel), OPENED)
    there.at(100)
    funds(there, OTHER)
    there.hear([enrols(1, WORKERS[1])])
    assert not there.asks(OpenChannel), "the day's limit is used up"
    assert rings_within_a_day(there)
    there.at(100 + DAY_S)
    assert there.asks(OpenChannel)
    assert [at for at, _ in there.row("openings", Openings).recent] == [START + 100 + DAY_S]


def test_an_opening_that_failed_in_the_wrong_year_is_tried_again_within_a_day() -> None:
    there = leader().at(YEAR)
    there.ends(there.asked(OpenChannel), Failed("it is away"))
    there.at(100)
    assert not there.asks(OpenChannel)
    assert rings_within_a_day(there)
    there.at(100 + DAY_S)
    assert there.asks(OpenChannel)


def test_one_that_is_under_way_when_the_clock_is_put_right_is_booked_once() -> None:
    there = leader(policy=TIGHT).at(YEAR)
    there.now = UnixTime(START + YEAR)
    begun = there.asked(OpenChannel)
    there.at(100)
    there.ends(begun, Failed("no"))
    assert there.row("openings", Openings) == Openings()


def test_a_withdrawal_of_the_wrong_year_holds_up_the_next_for_a_day_at_most() -> None:
    failed = worker(coin(ENOUGH)).at(YEAR)
    failed.ends(failed.asked(PrepareWithdrawal), Failed("no"))
    spliced = worker(channels=(channel(ABOVE + KEEP),)).at(YEAR)
    spliced.ends(spliced.asked(SpliceOut), TransactionSent(SPLICED))
    wallet(spliced, coin(ENOUGH))
    for there in (failed.at(100), spliced.at(100)):
        assert rings_within_a_day(there)
        there.at(100 + DAY_S)
        assert there.asks(PrepareWithdrawal)


def test_a_share_is_paid_again_after_minutes() -> None:
    there = closed()
    run = msgspec.structs.replace(there.run, round=there.run.manifest.rounds)
    dues = Dues(KEYS[0], due_msat=Msat(2 * PAYABLE_MSAT), retry_at=UnixTime(START + YEAR))
    there.state = NodeState({**there.state.rows, "run": run, f"dues/{KEYS[0]}": dues})
    there.at(there.now - START + 1)
    there.at(there.now - START + RETRY_S)
    assert any(KEYS[0] in effect.owner for effect in there.asks(FetchInvoice))
