"""What somebody who wants more than its share of the channels that a coordinator opens by policy tries, and does not get."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Failed, OpenChannel
from nostrain.core.inputs import Boot, Received
from nostrain.core.timing import DAY_S
from nostrain.core.treasury.liquidity_rows import Coin
from nostrain.core.treasury.opening_rows import Openings
from nostrain.units import BlockHeight, Msat
from tests.core.actors import Node
from tests.core.opening import FIRST, OPENED, OTHER, POLICY, enrols, funds, leader, node_id, peer
from tests.docs.examples import WORKERS, Party


def test_one_that_fails_does_not_give_back_the_day_of_the_one_before() -> None:
    coins = tuple(Coin(f"{n:064x}:0", Msat(500_000_000), BlockHeight(1)) for n in range(4))
    there = leader(*coins, policy=msgspec.structs.replace(POLICY, day_msat=Msat(2 * FIRST)), workers=0)
    for n, party in enumerate(WORKERS[:3]):
        there.take(Received(enrols(n, party)))
    first = there.asked(OpenChannel)
    there.at(60)
    there.ends(first, OPENED)
    there.ends(there.asked(OpenChannel), Failed("I will not"))  # begun in the second in which the first one ended
    there.ends(there.asked(OpenChannel), OPENED)
    there.at(2 * 3_600)
    assert not there.asks(OpenChannel), "two of this day's two are used"
    assert there.row("openings", Openings).total_msat == 2 * FIRST


def used_up(there: Node, party: Party, days: int = 1) -> OpenChannel:
    """The next opening to one whose channel is used up, and old enough."""
    policy = there.identity.channels
    assert policy is not None
    there.identity = msgspec.structs.replace(there.identity, channels=msgspec.structs.replace(policy, day_msat=POLICY.total_msat))
    there.take(Boot(there.identity))
    there.block()
    funds(there, OTHER, peers=(peer(party, 0),))
    there.at(days * DAY_S + 60)
    return there.asked(OpenChannel)


def test_a_second_channel_that_fails_leaves_the_first_one_known() -> None:
    there = leader(policy=msgspec.structs.replace(POLICY, max_channels=1))
    there.ends(there.asked(OpenChannel), OPENED)
    second = used_up(there, WORKERS[0])
    assert second.name == "open:2", "who has one of all that there may be still has its own refilled"
    there.ends(second, Failed("I will not"))
    there.take(Received(enrols(1, WORKERS[1])))
    assert not there.asks(OpenChannel), "the first one is there"
    there.at(DAY_S + 2 * 3_600)
    there.ends(there.asked(OpenChannel, "open:3"), Failed("nor now"))
    funds(there, OTHER, peers=())
    there.at(3 * DAY_S)
    assert not there.asks(OpenChannel), "it was closed: there is no other"


def test_who_names_another_node_has_no_other_channel() -> None:
    """To its own second node somebody may have opened one that carries nothing for us."""
    there = leader()
    there.ends(there.asked(OpenChannel), OPENED)
    there.take(Received(enrols(0, WORKERS[0], id_=node_id(WORKERS[1]), after=4)))
    funds(there, OTHER, peers=(peer(WORKERS[1], 0),))
    there.at(2 * DAY_S)
    assert not there.asks(OpenChannel)
