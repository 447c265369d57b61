"""Channels by themselves: reserve, slots, capacity, and money that is conserved whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nostrain.devnet.simnet.channels import Channel, Htlc, HtlcRefused, Onion
from nostrain.units import BlockHeight, Digest, Msat

HASH = Digest("00" * 32)


class Ends:
    """A channel of 1,000,000 msat, 900,000 of it with `a`, and what its senders were told."""

    def __init__(self, slots: int = 30) -> None:
        self.channel = Channel(("a", "b"), "1x1x1", {"a": Msat(900_000), "b": Msat(100_000)}, slots)
        self.settled: list[str] = []
        self.failed: list[Onion] = []

    def offer(self, who: str, amount: int) -> Htlc:
        def on_failed(reason: HtlcRefused) -> None:
            self.failed.append(reason.code)

        return self.channel.offer(who, Msat(amount), HASH, BlockHeight(100), self.settled.append, on_failed)


def test_one_percent_is_kept_back() -> None:
    ends = Ends()
    assert ends.channel.spendable("a") == 890_000
    with pytest.raises(HtlcRefused, match="Capacity exceeded"):
        ends.offer("a", 890_001)
    ends.offer("a", 890_000)
    assert ends.channel.spendable("a") == 0


def test_an_offered_htlc_stays_with_its_sender_until_it_is_fulfilled() -> None:
    ends = Ends()
    htlc = ends.offer("a", 200_000)
    assert (ends.channel.to_us["a"], ends.channel.offered("a"), ends.channel.spendable("a")) == (900_000, 200_000, 690_000)
    assert ends.channel.spendable("b") == 90_000
    ends.channel.fulfil(htlc, "preimage")
    assert ends.channel.to_us == {"a": 700_000, "b": 300_000}
    assert (ends.settled, ends.failed) == (["preimage"], [])


def test_a_failed_htlc_leaves_everything_as_it_was() -> None:
    ends = Ends()
    htlc = ends.offer("b", 50_000)
    ends.channel.fail(htlc, HtlcRefused(Onion.MPP_TIMEOUT, ""))
    ends.channel.fail(htlc, HtlcRefused(Onion.MPP_TIMEOUT, ""))
    assert ends.channel.to_us == {"a": 900_000, "b": 100_000}
    assert (ends.settled, ends.failed) == ([], [Onion.MPP_TIMEOUT])


def test_slots_are_counted_for_each_direction() -> None:
    ends = Ends(slots=2)
    first = ends.offer("a", 1)
    ends.offer("a", 1)
    with pytest.raises(HtlcRefused, match="Too many HTLCs") as refused:
        ends.offer("a", 1)
    assert refused.value.code is Onion.TEMPORARY_CHANNEL_FAILURE
    ends.offer("b", 1)
    ends.channel.fulfil(first, "x")
    ends.offer("a", 1)


def test_a_closed_channel_takes_nothing_and_resolves_what_it_has() -> None:
    ends = Ends()
    htlc = ends.offer("a", 100)
    ends.channel.closed = True
    assert ends.channel.spendable("a") == 0
    with pytest.raises(HtlcRefused, match="closed"):
        ends.offer("a", 1)
    ends.channel.fulfil(htlc, "x")
    assert ends.channel.to_us["b"] == 100_100


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 300_000), st.sampled_from(["fulfil", "fail", "keep"]))))
def test_no_millisatoshi_comes_or_goes(steps: list[tuple[str, int, str]]) -> None:
    ends = Ends(slots=3)
    for who, amount, fate in steps:
        before = ends.channel.to_us[who]
        try:
            htlc = ends.offer(who, amount)
        except HtlcRefused:
            assert ends.channel.to_us[who] == before
            continue
        if fate == "fulfil":
            ends.channel.fulfil(htlc, "x")
            assert ends.channel.to_us[who] == before - amount
        elif fate == "fail":
            ends.channel.fail(htlc, HtlcRefused(Onion.MPP_TIMEOUT, ""))
        ends.channel.check()
    assert sum(ends.channel.to_us.values()) == 1_000_000
