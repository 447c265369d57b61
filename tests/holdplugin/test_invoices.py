"""The rules of the hold plugin: each on its own, and any sequence of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.holdplugin import invoices
from nostrain.holdplugin.invoices import Fail, Failure, Hold, Invoice, Refused, Resolve, State
from nostrain.units import BlockHeight, Msat, UnixTime
from tests.holdplugin.hold_examples import AMOUNT, DEADLINE, HEIGHT, MIN_CLTV, NOW, PREIMAGE, invoice, key, offer

LAST = BlockHeight(HEIGHT + MIN_CLTV - DEADLINE - 1)
"""The last height at which an example may be settled."""


def received(*offers: invoices.Offer, now: UnixTime = NOW) -> Invoice:
    held = invoice()
    for each in offers:
        held = invoices.receive(held, each, DEADLINE, now)
    return held


def test_a_whole_payment_is_held_and_settled() -> None:
    held = received(offer())
    assert (held.state, invoices.answer(held, key(0))) == (State.ACCEPTED, Hold())
    settled = invoices.settle(held, PREIMAGE, LAST, DEADLINE)
    assert (settled.state, settled.preimage) == (State.PAID, PREIMAGE)
    assert invoices.answer(settled, key(0)) == Resolve(PREIMAGE)
    assert invoices.settle(settled, PREIMAGE, BlockHeight(HEIGHT + 10_000), DEADLINE) == settled


def test_a_payment_in_parts_is_accepted_when_all_are_there() -> None:
    first = received(offer(0, 60_000))
    assert (first.state, invoices.answer(first, key(0))) == (State.UNPAID, Hold())
    with pytest.raises(Refused, match="no HTLCs to settle"):
        invoices.settle(first, PREIMAGE, HEIGHT, DEADLINE)
    assert received(offer(0, 60_000), offer(1, 40_000)).state is State.ACCEPTED


def test_a_set_is_whole_when_the_payers_total_is_there_and_not_before() -> None:
    """BOLT 4: the total that the onion names, which may be more than the amount."""
    more = Msat(AMOUNT + 50_000)
    first = offer(0, AMOUNT, total_msat=more)
    assert received(first).state is State.UNPAID
    assert received(first, offer(1, 50_000, total_msat=more)).state is State.ACCEPTED


@pytest.mark.parametrize(
    "wrong",
    [
        {"payment_secret": "33" * 32},
        {"payment_secret": None},
        {"total_msat": None},
        {"total_msat": AMOUNT - 1},
        {"total_msat": 2 * AMOUNT + 1},
        {"amount": 2 * AMOUNT + 1, "total_msat": 2 * AMOUNT},
        {"amount": 0},
        {"forward_msat": AMOUNT + 1},
        {"outgoing_cltv": HEIGHT + MIN_CLTV + 1},
        {"cltv_expiry": HEIGHT + MIN_CLTV - 1, "outgoing_cltv": HEIGHT},
        {"height": HEIGHT + 1},
    ],
)
def test_what_does_not_fit_is_failed_and_leaves_nothing_behind(wrong: dict[str, Any]) -> None:
    held = received(offer(7, **wrong))
    assert held == invoice()
    assert invoices.answer(held, key(7)) == Fail(Failure.DETAILS)


def test_a_deadline_above_the_invoices_own_cltv_counts() -> None:
    assert invoices.receive(invoice(), offer(), MIN_CLTV, NOW) == invoice()
    assert invoices.receive(invoice(), offer(), MIN_CLTV - 1, NOW).state is State.ACCEPTED


def test_an_expired_invoice_takes_nothing_more() -> None:
    assert received(offer(), now=UnixTime(NOW + 3_600)).state is State.UNPAID
    assert received(offer(), now=UnixTime(NOW + 3_599)).state is State.ACCEPTED


def test_parts_that_disagree_about_the_total_do_not_go_together() -> None:
    held = received(offer(0, 60_000), offer(1, 60_000, total_msat=Msat(AMOUNT + 20_000)))
    assert invoices.answer(held, key(1)) == Fail(Failure.DETAILS)
    assert held.held_msat == 60_000


def test_nobody_pays_twice() -> None:
    for done in (received(offer()), invoices.settle(received(offer()), PREIMAGE, HEIGHT, DEADLINE), invoices.cancel(received(offer()))):
        again = invoices.receive(done, offer(1), DEADLINE, NOW)
        assert (again, invoices.answer(again, key(1))) == (done, Fail(Failure.DETAILS))


def test_a_replayed_htlc_gets_the_answer_that_it_had() -> None:
    held = received(offer())
    # Much later: the checks were made when it came.
    late = offer(height=BlockHeight(HEIGHT + 40))
    assert invoices.receive(held, late, DEADLINE, UnixTime(NOW + 10**6)) == held
    paid, cancelled = invoices.settle(held, PREIMAGE, HEIGHT, DEADLINE), invoices.cancel(held)
    assert invoices.answer(invoices.receive(paid, late, DEADLINE, NOW), key(0)) == Resolve(PREIMAGE)
    assert invoices.answer(invoices.receive(cancelled, late, DEADLINE, NOW), key(0)) == Fail(Failure.DETAILS)


def test_an_htlc_is_known_by_its_number_and_its_onion() -> None:
    """Two channels may have an HTLC of the same number; a channel may change its id while it holds one."""
    held = received(offer(0, 60_000))
    assert invoices.answer(held, replace(key(0), onion=key(1).onion)) == Fail(Failure.DETAILS)
    assert invoices.receive(held, offer(0, 60_000, scid="2x2x2"), DEADLINE, NOW) == held


def test_the_last_moment() -> None:
    held = received(offer())
    assert invoices.expire(held, LAST, DEADLINE) == held
    late = BlockHeight(LAST + 1)
    with pytest.raises(Refused, match="too late"):
        invoices.settle(held, PREIMAGE, late, DEADLINE)
    assert invoices.expire(held, late, DEADLINE).state is State.CANCELLED


def test_what_is_paid_does_not_expire_and_cannot_be_cancelled() -> None:
    paid = invoices.settle(received(offer()), PREIMAGE, LAST, DEADLINE)
    assert invoices.expire(paid, BlockHeight(HEIGHT + 10_000), DEADLINE) == paid
    with pytest.raises(Refused, match="paid is final"):
        invoices.cancel(paid)


def test_parts_wait_so_long_and_no_longer() -> None:
    held = received(offer(0, 60_000))
    assert invoices.time_out(held, 60, UnixTime(NOW + 59)) == held
    timed_out = invoices.time_out(held, 60, UnixTime(NOW + 60))
    assert (timed_out.state, invoices.answer(timed_out, key(0))) == (State.UNPAID, Fail(Failure.MPP_TIMEOUT))
    assert invoices.receive(timed_out, offer(1), DEADLINE, NOW).state is State.ACCEPTED
    whole = received(offer())
    assert invoices.time_out(whole, 60, UnixTime(NOW + 10_000)) == whole


def test_a_set_that_lost_a_part_is_not_settled_for_less() -> None:
    held = received(offer(0, 60_000), offer(1, 40_000))
    lost = invoices.lose(held, frozenset({key(1)}))
    assert (lost.state, lost.held) == (State.CANCELLED, ())
    assert invoices.lose(held, frozenset({key(5)})) == held
    partial = invoices.lose(received(offer(0, 60_000)), frozenset({key(0)}))
    assert (partial.state, partial.held) == (State.UNPAID, ())


HEIGHTS = st.integers(HEIGHT, HEIGHT + 2 * MIN_CLTV).map(BlockHeight)
STEPS = st.one_of(
    st.tuples(
        st.just("receive"), st.integers(0, 4), st.sampled_from([20_000, 50_000, 100_000, 200_001]), st.sampled_from([100_000, 120_000])
    ),
    st.tuples(st.just("settle"), HEIGHTS),
    st.tuples(st.just("cancel")),
    st.tuples(st.just("expire"), HEIGHTS),
    st.tuples(st.just("time_out"), st.integers(NOW, NOW + 200)),
    st.tuples(st.just("lose"), st.integers(0, 4)),
)


def step(held: Invoice, name: str, *values: Any) -> Invoice:
    match name:
        case "receive":
            return invoices.receive(held, offer(values[0], values[1], total_msat=Msat(values[2])), DEADLINE, NOW)
        case "settle":
            return invoices.settle(held, PREIMAGE, values[0], DEADLINE)
        case "cancel":
            return invoices.cancel(held)
        case "expire":
            return invoices.expire(held, values[0], DEADLINE)
        case "time_out":
            return invoices.time_out(held, 60, UnixTime(values[0]))
        case _:
            return invoices.lose(held, frozenset({key(values[0])}))


@given(st.lists(STEPS, max_size=12))
def test_whatever_happens(steps: list[tuple[Any, ...]]) -> None:
    """An answer once given is given for ever; what is claimed is at least the amount and one set; paid and cancelled are final."""
    held, final = invoice(), {}
    for name, *values in steps:
        before = held
        try:
            held = step(held, name, *values)
        except Refused:
            continue
        for number in range(5):
            told = invoices.answer(held, key(number))
            known = held.find(key(number)) is not None
            if known and number in final:
                assert told == final[number]
            if known and not isinstance(told, Hold):
                final[number] = told
        if before.state in (State.PAID, State.CANCELLED):
            assert held.state is before.state
        claimed = [htlc for htlc in held.htlcs if htlc.state is State.PAID]
        assert (held.state is State.PAID) == bool(claimed)
        assert (held.preimage is not None) == bool(claimed)
        if claimed:
            assert AMOUNT <= claimed[0].total_msat <= sum(htlc.amount_msat for htlc in claimed) <= 2 * AMOUNT
            assert not held.held
        if held.state is State.CANCELLED:
            assert not held.held
        if name == "expire" and held.next_expiry is not None:
            assert held.next_expiry - values[0] > DEADLINE
