"""A call that opens a channel and outlives its daemon: the next start hears that nothing came of it, and then something does."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Failed, OpenChannel
from nostrain.core.inputs import Received
from nostrain.core.tables import OpeningState
from nostrain.core.timing import DAY_S
from nostrain.core.treasury.liquidity_rows import Coin
from nostrain.core.treasury.opening_rows import Opening, Openings
from nostrain.core.treasury.openings import RETRY_S
from nostrain.units import BlockHeight, Msat
from tests.core.actors import HEIGHT, Node
from tests.core.opening import FIRST, OPENED, OTHER, POLICY, RICH, enrols, funds, leader, node_id, peer
from tests.docs.examples import WORKERS

KEY = f"opening/{WORKERS[0].pubkey}"
LARGER = Coin("dd" * 32 + ":0", Msat(900_000_000), BlockHeight(HEIGHT - 50))


def failed(there: Node) -> Node:
    """The peer could not be reached, as far as the second daemon can know."""
    there.ends(there.asked(OpenChannel), Failed("it is away"))
    return there


def test_the_next_attempt_has_the_coins_of_the_last() -> None:
    """However the first call ends, at most one of them can open a channel."""
    there = failed(leader())
    funds(there, RICH, LARGER)
    there.at(RETRY_S)
    again = there.asked(OpenChannel)
    assert RICH.outpoint in again.coins
    assert not again.ask


def test_also_when_the_worker_names_another_node_and_needs_more() -> None:
    small = Coin("ee" * 32 + ":0", Msat(FIRST + 100_000_000), BlockHeight(1))
    there = leader(small, policy=msgspec.structs.replace(POLICY, reserve_msat=Msat(25_000_000)))
    failed(there)
    there.take(Received(enrols(0, WORKERS[0], id_=node_id(WORKERS[2]), after=4)))
    funds(there, small, LARGER)
    there.at(RETRY_S)
    assert there.asked(OpenChannel).node_id == node_id(WORKERS[2])
    assert small.outpoint in there.asked(OpenChannel).coins


def test_coins_that_are_not_deep_enough_any_more_are_waited_for() -> None:
    there = failed(leader())
    there.at(10)
    funds(there, msgspec.structs.replace(RICH, height=BlockHeight(HEIGHT)), LARGER)
    there.at(RETRY_S)
    assert not there.asks(OpenChannel)
    assert "the coins of the last attempt" in there.told("channels_not_opened")[0]


def test_a_channel_that_came_after_all_is_found_by_its_coins_and_counted_once() -> None:
    there = failed(leader())
    funds(there, OTHER)
    there.at(RETRY_S)
    asked = there.asked(OpenChannel)
    assert asked.ask
    assert asked.coins == (RICH.outpoint,)
    there.ends(asked, OPENED)
    row = there.row(KEY, Opening)
    assert (row.state, row.asking, row.opened_to) == (OpeningState.OPENED, False, node_id(WORKERS[0]))
    assert there.row("openings", Openings).total_msat == FIRST
    assert not there.asks(OpenChannel), "it has its channel, which waits for a block"


def test_it_is_looked_for_although_the_worker_needs_none_any_more() -> None:
    there = failed(leader())
    funds(there, OTHER, peers=(peer(WORKERS[0], FIRST),))
    there.at(RETRY_S)
    there.ends(there.asked(OpenChannel), OPENED)
    assert there.row("openings", Openings).total_msat == FIRST


def test_coins_that_were_spent_otherwise_are_no_claim_and_the_next_attempt_has_others() -> None:
    there = failed(leader())
    funds(there, OTHER)
    there.at(RETRY_S)
    there.ends(there.asked(OpenChannel), Failed("its coins were spent otherwise"))
    again = there.asked(OpenChannel)
    assert not again.ask
    assert again.coins == (OTHER.outpoint,)
    assert there.row(KEY, Opening).failures == 1, "asking is no attempt"
    assert len(there.told("channels_failed")) == 1
    assert there.row("openings", Openings).total_msat == FIRST


def test_coins_that_another_opening_has_spent_are_not_asked_about() -> None:
    there = failed(leader(workers=1))
    there.take(Received(enrols(1, WORKERS[1])))
    other = there.asked(OpenChannel)
    assert other.coins == (RICH.outpoint,)
    there.ends(other, OPENED)
    funds(there, OTHER)
    there.at(RETRY_S)
    assert there.asked(OpenChannel).coins == (OTHER.outpoint,)
    assert not there.asked(OpenChannel).ask


def test_nothing_is_asked_before_its_time_or_twice() -> None:
    there = failed(leader())
    funds(there, OTHER)
    there.at(RETRY_S - 1)
    assert not there.asks(OpenChannel)
    there.at(RETRY_S)
    there.ends(there.asked(OpenChannel), Failed("nothing came of it"))
    there.ends(there.asked(OpenChannel), Failed("it is still away"))
    funds(there)
    there.at(10 * DAY_S)
    assert there.asked(OpenChannel).ask, "about the second attempt"
    there.ends(there.asked(OpenChannel), Failed("nothing came of it"))
    there.at(20 * DAY_S)
    assert not there.asks(OpenChannel)
