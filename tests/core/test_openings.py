"""Channels that a coordinator opens by policy: to whom, how large, within which limits, and once."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nostrain.core import node
from nostrain.core.effects import Failed, OpenChannel
from nostrain.core.escrow.rows import Payer, PayerLevel, Tickets, TicketSold
from nostrain.core.inputs import Boot, NodeChanged, Received
from nostrain.core.rows import NodeState
from nostrain.core.tables import OpeningState, PayerState
from nostrain.core.timing import DAY_S
from nostrain.core.treasury.liquidity_rows import Coin, LightningNode, Peer
from nostrain.core.treasury.opening_rows import Opening, Openings
from nostrain.daemon.wallet import owners_of
from nostrain.protocol.messages import Enrolment, NodeAddress
from nostrain.units import BlockHeight, Digest, Msat, Pubkey
from tests.core.actors import EXAMPLES, HEIGHT, Node, until
from tests.core.opening import FIRST, LATER, LEVELS, MANIFEST, OPENED, OTHER, POLICY, RICH, TXID, enrols, funds, leader, node_id, peer
from tests.docs.examples import COORDINATOR, START, WORKERS, Party

NEED = LEVELS * MANIFEST.level_msat
EMBEDDED = ("[64:ff9b::a00:1]:9735", "[2002:a00:1::1]:9735", "[::a00:1]:9735", "[::ffff:10.0.0.1]:9735", "[ff0e::1]:9735", "224.0.0.1:9735")
"""10.0.0.1 through a NAT64, through 6to4, and as its own; and everybody."""


def put(there: Node, key: str, row: Payer | Tickets) -> None:
    there.state = NodeState({**there.state.rows, key: row})


def escrow(party: Party, state: PayerState) -> Payer:
    return Payer(EXAMPLES.round_id, party.pubkey, levels=(PayerLevel(state),) * LEVELS)


def test_a_worker_that_names_its_node_gets_a_small_channel() -> None:
    there = leader()
    effect = there.asked(OpenChannel)
    assert (effect.node_id, effect.address, effect.capacity_msat) == (node_id(WORKERS[0]), "93.184.216.34:9735", FIRST)
    assert (effect.coins, effect.feerate_perkb, effect.announce) == ((RICH.outpoint,), 2000, False)
    assert 4 * NEED - 3 * MANIFEST.settlement.fee_msat <= FIRST
    there.ends(effect, OPENED)
    row = there.row(f"opening/{WORKERS[0].pubkey}", Opening)
    assert (row.state, row.txid) == (OpeningState.OPENED, TXID)
    assert there.row("openings", Openings).total_msat == FIRST
    assert TXID in there.told("channels_opened")[0]
    assert not there.asks(OpenChannel)


def test_without_a_policy_nothing_is_opened() -> None:
    there = Node(COORDINATOR, "coordinator")
    there.block().hear(until("manifest"))
    funds(there, RICH)
    there.take(Received(enrols(0, WORKERS[0])))
    assert not there.asks(OpenChannel)
    assert not there.has("openings")


@pytest.mark.parametrize("address", ["10.0.0.1:9735", "127.0.0.1:9735", "[::1]:9735", "169.254.169.254:80", "[fd00::1]:9735", *EMBEDDED])
def test_nobody_makes_us_look_into_our_own_network(address: str) -> None:
    there = leader(workers=0)
    there.take(Received(enrols(0, WORKERS[0], address)))
    assert not there.asks(OpenChannel)
    allowed = leader(workers=0, policy=msgspec.structs.replace(POLICY, private=True))
    allowed.take(Received(enrols(0, WORKERS[0], address)))
    assert allowed.asked(OpenChannel).address == address


def test_whoever_does_not_name_a_node_gets_none() -> None:
    there = leader(workers=0)
    there.hear(until("enrolment worker 2"))
    assert not there.asks(OpenChannel)


def test_one_at_a_time_and_one_a_node_whatever_keys_it_has() -> None:
    there = leader(workers=0)
    there.take(Received(enrols(0, WORKERS[0])))
    there.take(Received(enrols(1, WORKERS[1], id_=node_id(WORKERS[0]))))
    there.take(Received(enrols(2, WORKERS[2])))
    effect = there.asked(OpenChannel)
    there.ends(effect, OPENED)
    assert not there.asks(OpenChannel), "the coin is spent, whatever the node said before"
    funds(there, OTHER)
    second = there.asked(OpenChannel)
    assert {effect.node_id, second.node_id} == {node_id(WORKERS[0]), node_id(WORKERS[2])}
    there.ends(second, OPENED)
    funds(there, Coin("cc" * 32 + ":0", Msat(500_000_000), BlockHeight(1)))
    assert not there.asks(OpenChannel), "the key that names another's node has none of its own"


def test_only_ticket_holders_get_one_if_the_policy_says_so() -> None:
    there = leader(policy=msgspec.structs.replace(POLICY, to="ticket"), workers=2)
    assert not there.asks(OpenChannel)
    sold = Tickets(EXAMPLES.round_id, {WORKERS[1].pubkey: TicketSold(1, Digest("00" * 32), Digest("00" * 32))})
    put(there, f"tickets/{EXAMPLES.round_id}", sold)
    there.at(10)
    assert there.asked(OpenChannel).node_id == node_id(WORKERS[1])


def test_a_channel_that_carries_a_round_is_enough_also_while_it_is_locked() -> None:
    there = leader(peers=(peer(WORKERS[0], NEED),))
    assert not there.asks(OpenChannel)
    there.hear(until("announcement"))
    put(there, f"payer/{EXAMPLES.round_id}/{WORKERS[0].pubkey}", escrow(WORKERS[0], PayerState.PAYING))
    funds(there, RICH, peers=(peer(WORKERS[0], 0),))
    assert not there.asks(OpenChannel)


def test_who_used_one_up_gets_a_larger_one_a_day_later() -> None:
    there = leader()
    there.ends(there.asked(OpenChannel), OPENED)
    put(there, f"payer/{EXAMPLES.round_id}/{WORKERS[0].pubkey}", escrow(WORKERS[0], PayerState.PAID))
    there.identity = msgspec.structs.replace(there.identity, channels=msgspec.structs.replace(POLICY, day_msat=POLICY.total_msat))
    there.take(Boot(there.identity))
    there.block()
    funds(there, OTHER, peers=(peer(WORKERS[0], NEED - 1),))
    assert not there.asks(OpenChannel)
    deadline = node.next_deadline(there.state, there.now)
    assert deadline is not None
    there.now = msgspec.convert(there.row(f"opening/{WORKERS[0].pubkey}", Opening).at + DAY_S, type(there.now))
    there.at(there.now - START)
    assert there.asked(OpenChannel, "open:2").capacity_msat == LATER


def test_who_closed_its_channel_gets_no_other() -> None:
    there = leader()
    there.ends(there.asked(OpenChannel), OPENED)
    for days in range(1, 4):
        there.at(days * (DAY_S + 1))
        funds(there, OTHER, peers=())
        assert not there.asks(OpenChannel)


@pytest.mark.parametrize(
    ("limits", "coins", "words"),
    [
        ({"total_msat": Msat(FIRST - 1)}, (RICH,), "max_total_sat"),
        ({"day_msat": Msat(FIRST - 1)}, (RICH,), "max_day_sat"),
        ({"max_channels": 0}, (RICH,), "max_channels = 0"),
        ({"reserve_msat": Msat(RICH.amount_msat - FIRST)}, (RICH,), "keeps"),
        ({}, (msgspec.structs.replace(RICH, height=BlockHeight(HEIGHT - 1)),), "with 3 confirmations"),
    ],
)
def test_limits_are_kept_and_said_once(limits: dict[str, Msat], coins: tuple[Coin, ...], words: str) -> None:
    there = leader(*coins, policy=msgspec.structs.replace(POLICY, **limits))
    there.at(10)
    funds(there, *coins, peers=(Peer("02", True, Msat(1), Msat(1), 1, 1),))
    assert not there.asks(OpenChannel)
    (told,) = there.told("channels_not_opened")
    assert words in told


def test_what_failed_took_nothing_and_is_tried_again_later() -> None:
    there = leader()
    there.ends(there.asked(OpenChannel), Failed("it is not there"))
    assert "it is not there" in there.told("channels_failed")[0]
    assert there.row("openings", Openings) == Openings()
    assert not there.asks(OpenChannel)
    assert node.next_deadline(there.state, there.now) is not None
    there.at(3_600)
    there.ends(there.asked(OpenChannel, "open:2"), Failed("again"))
    there.at(2 * 3_600)
    assert not there.asks(OpenChannel), "twice as long after a second failure"
    there.at(4 * 3_600)
    assert there.asks(OpenChannel)


def test_an_opening_is_resumed_with_the_same_coins_and_never_begun_again() -> None:
    there = leader()
    before = there.asked(OpenChannel)
    there.identity = msgspec.structs.replace(there.identity, channels=None)
    there.take(Boot(there.identity))
    assert there.asked(OpenChannel) == before, "what was begun is asked for, whatever the policy says now"
    there.ends(before, OPENED)
    assert there.row(f"opening/{WORKERS[0].pubkey}", Opening).state is OpeningState.OPENED


def test_a_worker_says_where_its_node_is_once_it_knows() -> None:
    worker = Node(WORKERS[0], "worker")
    worker.identity = msgspec.structs.replace(worker.identity, address="93.184.216.34:9735")
    worker.take(Boot(worker.identity))
    worker.hear(until("manifest"))
    (plain,) = worker.speak()
    assert isinstance(plain.body, Enrolment)
    assert plain.body.node is None
    worker.now = msgspec.convert(worker.now + 5, type(worker.now))
    worker.take(NodeChanged("ready", None, (), node_id(WORKERS[0])))
    (said,) = worker.speak()
    assert isinstance(said.body, Enrolment)
    assert said.body.node == NodeAddress(node_id(WORKERS[0]), "93.184.216.34:9735")
    worker.at(20)
    assert worker.speak() == [], "once"


@settings(max_examples=40, deadline=None)
@given(
    ends=st.lists(st.sampled_from(["opened", "failed", "used", "day", "hour"]), max_size=25),
    total=st.integers(0, 6),
    amounts=st.lists(st.integers(1_000, 600_000), min_size=1, max_size=4),
)
def test_whatever_happens_the_limits_hold(ends: list[str], total: int, amounts: list[int]) -> None:
    policy = msgspec.structs.replace(
        POLICY, total_msat=Msat(total * FIRST), day_msat=Msat(min(total, 2) * FIRST), reserve_msat=Msat(50_000_000)
    )
    coins = tuple(Coin(f"{n:064x}:0", Msat(sat * 1000), BlockHeight(1)) for n, sat in enumerate(amounts))
    there = leader(*coins, policy=policy, workers=3)
    opened: list[tuple[int, Msat]] = []
    clock = 10
    for end in ends:
        if end in ("opened", "failed"):
            for effect in there.asks(OpenChannel):
                listed = {coin.outpoint: coin.amount_msat for coin in coins}
                assert sum(listed[coin] for coin in effect.coins) >= effect.capacity_msat
                assert sum(listed.values()) - effect.capacity_msat >= policy.reserve_msat
                if end == "opened":
                    opened.append((there.now, effect.capacity_msat))
                there.ends(effect, OPENED if end == "opened" else Failed("no"))
        elif end == "used":
            funds(there, *coins, peers=tuple(peer(party, 0) for party in WORKERS))
        else:
            clock += DAY_S if end == "day" else 3_600
            there.at(clock)
        assert len(there.asks(OpenChannel)) <= 1
        assert sum(amount for _, amount in opened) <= policy.total_msat
        assert sum(amount for at, amount in opened if at > there.now - DAY_S) <= policy.day_msat


def test_the_wallet_knows_for_whom_a_channel_was_opened() -> None:
    there = leader()
    there.ends(there.asked(OpenChannel), OPENED)
    assert owners_of(there.state)[node_id(WORKERS[0])] == (Pubkey(WORKERS[0].pubkey), there.run.enrolled[WORKERS[0].pubkey][2].name)
    assert isinstance(there.state.rows["lightning"], LightningNode)
