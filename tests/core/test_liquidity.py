"""What our Lightning node has to be, and to have, for a paid round; who is told what when it has not."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import BuyTicket, Draw
from nostrain.core.escrow.rows import Payer, PayerLevel
from nostrain.core.inputs import Boot, NodeChanged
from nostrain.core.rows import NodeState, Submission
from nostrain.core.tables import PayerState
from nostrain.core.treasury.liquidity import crowded, held_up, hindrance, payable, unpayable, warnings
from nostrain.core.treasury.liquidity_rows import LightningNode, Peer
from nostrain.protocol.manifest import SettlementSpec
from nostrain.protocol.messages import Announcement
from nostrain.units import Msat
from tests.core.actors import EXAMPLES, LIMITS, RICH, Node, until
from tests.core.payees import held
from tests.docs.examples import COORDINATOR, VALIDATORS, WORKERS

MANIFEST = EXAMPLES.manifest
NEED, FEE = 4 * MANIFEST.level_msat, MANIFEST.settlement.fee_msat
DOWN, SYNCING = NodeChanged("down", "it does not answer"), NodeChanged("syncing", "45 blocks behind")
WORK = f"work/{EXAMPLES.round_id}"


def peer(spendable: int = NEED, receivable: int = NEED, out: int = 4, in_: int = 4, **changes: object) -> Peer:
    return msgspec.structs.replace(Peer("02", True, Msat(spendable), Msat(receivable), out, in_), **changes)


def node(*peers: Peer) -> LightningNode:
    return LightningNode("ready", None, peers)


@pytest.mark.parametrize(
    ("there", "leads", "state", "words"),
    [
        (None, False, "unknown", "has not answered yet"),
        (LightningNode("down", "no socket"), False, "down", "no socket"),
        (LightningNode("syncing"), True, "syncing", "is syncing"),
        (node(), False, "short", "can send 0 sat, a ticket costs 50"),
        (node(peer(spendable=FEE - 1)), False, "short", "can send 49 sat, a ticket costs 50"),
        (node(peer(receivable=NEED - 1)), False, "short", "can receive 999 sat, a round pays up to 1000"),
        (node(peer(in_=3)), False, "short", "room for 3 HTLCs, a round needs 4"),
        (node(peer(connected=False)), False, "short", "can send 0 sat"),
        (node(peer(spendable=NEED - 1)), True, "short", "can send 999 sat in 4 HTLCs, one worker needs 1000 in 4"),
        (node(peer(out=3)), True, "short", "can send 1000 sat in 3 HTLCs"),
        (node(peer(connected=False)), True, "short", "can send 0 sat in 0 HTLCs"),
    ],
)
def test_what_keeps_a_node_from_paid_rounds(there: LightningNode | None, leads: bool, state: str, words: str) -> None:
    found = hindrance(there, MANIFEST, leads=leads)
    assert found is not None
    assert found.state == state
    assert words in found.reason
    assert hindrance(there, msgspec.structs.replace(MANIFEST, settlement=SettlementSpec()), leads=leads) is None


def test_what_is_just_enough() -> None:
    assert hindrance(node(peer(spendable=FEE)), MANIFEST, leads=False) is None
    assert hindrance(node(peer(receivable=0, in_=0)), MANIFEST, leads=True) is None
    assert hindrance(node(peer(FEE, NEED - 1, 4, 3), peer(0, 1, 0, 1)), MANIFEST, leads=False) is None


def test_for_how_many_workers_levels_can_be_locked() -> None:
    assert payable(node(peer(5 * NEED, out=30)), MANIFEST) == 5
    assert payable(node(peer(9 * NEED, out=30)), MANIFEST) == 7, "30 HTLCs are those of seven workers"
    assert payable(node(peer(NEED), peer(2 * NEED - 1, out=9), peer(8 * NEED, out=99, connected=False)), MANIFEST) == 2
    assert crowded(node(peer(2 * NEED, out=30)), MANIFEST, 2) == ()
    assert "2 of 3 workers" in crowded(node(peer(2 * NEED, out=30)), MANIFEST, 3)[0]
    assert "2 of 8 workers" in crowded(node(peer(2 * NEED, out=30)), MANIFEST, 70)[0], "more than the slots are not listed anyway"


def test_workers_whose_channels_cannot_carry_their_levels_are_named() -> None:
    first, second, third = (party.pubkey for party in WORKERS)
    there = node(peer(NEED - 1, owner=first), peer(out=3, owner=second), peer(), peer(NEED, owner=third, connected=False))
    assert unpayable(there, MANIFEST, (first, second, third)) == (
        f"worker {first[:8]}: its channels can carry 999 of 1000 sat",
        f"worker {second[:8]}: its channels have 3 of 4 HTLC slots",
        f"worker {third[:8]}: its node is not connected",
    )
    assert unpayable(node(peer(NEED - 1, owner=first), peer(NEED, owner=first)), MANIFEST, (first, second)) == ()


def worker(state: NodeChanged | None) -> Node:
    """A worker that is listed in the open round, ready to work, and its node in that state."""
    there = Node(WORKERS[0], "worker")
    there.take(Boot(there.identity))
    if state is not None:
        there.take(state)
    return there.hear(until("announcement")).ready().at(6)


@pytest.mark.parametrize("state", [None, DOWN, SYNCING, NodeChanged("ready", None, (peer(spendable=0),))])
def test_a_worker_whose_node_cannot_settle_neither_works_nor_buys_until_it_can(state: NodeChanged | None) -> None:
    there = worker(state)
    assert not there.has(WORK)
    assert not there.asks(BuyTicket)
    there.take(RICH)
    assert there.row(WORK, Submission).ticket is None
    assert there.asks(BuyTicket)
    assert there.asks(Draw)


def test_it_does_not_begin_when_the_time_is_over() -> None:
    there = worker(DOWN).past(LIMITS.commit_by)
    there.take(RICH)
    assert not there.has(WORK)


def test_a_worker_that_has_begun_does_not_stop() -> None:
    there = worker(RICH)
    there.take(DOWN)
    assert there.asks(BuyTicket), "the ticket is asked for until the node is back or the time is over"
    assert there.told("rounds_not_payable") == ["no paid round until that changes: it does not answer"]
    there.take(NodeChanged("down", "it still does not answer"))
    there.take(RICH)
    assert len(there.told("rounds_not_payable")) == 1, "said once"
    assert there.told("rounds_payable") == ["our Lightning node can settle rounds"]


def leader(state: NodeChanged | None) -> Node:
    there = Node(COORDINATOR, "coordinator")
    there.take(Boot(there.identity))
    if state is not None:
        there.take(state)
    return there.hear(until("enrolment worker 2")).ready().at(5)


def announced(there: Node) -> list[Announcement]:
    return [message.body for message in there.speak() if isinstance(message.body, Announcement)]


@pytest.mark.parametrize("state", [None, DOWN, SYNCING, NodeChanged("ready", None, (peer(spendable=NEED - 1),))])
def test_a_coordinator_announces_no_round_that_it_cannot_lock(state: NodeChanged | None) -> None:
    there = leader(state)
    assert announced(there) == []
    there.take(RICH)
    (body,) = announced(there)
    assert len(body.workers) == 3
    assert there.told("locks_in_doubt") == []


def test_a_coordinator_is_warned_of_what_it_cannot_pay() -> None:
    first = WORKERS[0].pubkey
    poor = NodeChanged("ready", None, (peer(NEED - 1, out=30, owner=first), peer(NEED + 1, out=30)))
    there = Node(COORDINATOR, "coordinator")
    there.take(poor)
    there.hear(until("enrolment worker 2"))
    assert [line.partition(";")[0] for line in warnings(there.state)[:1]] == ["our channels can lock the levels of 2 of 3 workers"]
    assert warnings(there.state)[1:] == (f"worker {first[:8]}: its channels can carry 999 of 1000 sat",)


def paying(there: Node, state: PayerState) -> Node:
    """The coordinator's escrows with all workers of a round are in that state."""
    rows = {
        f"payer/{EXAMPLES.round_id}/{party.pubkey}": Payer(EXAMPLES.round_id, party.pubkey, levels=(PayerLevel(state),) * 4)
        for party in WORKERS
    }
    there.state = NodeState({**there.state.rows, **rows})
    return there


def test_money_that_is_locked_is_not_said_to_be_missing() -> None:
    """A coordinator with just enough would otherwise be warned in every round, and told in every round that all is well."""
    there = Node(COORDINATOR, "coordinator").hear(until("announcement"))
    there.take(NodeChanged("ready", None, tuple(peer(NEED, owner=party.pubkey) for party in WORKERS)))
    locked = tuple(peer(0, out=0, owner=party.pubkey) for party in WORKERS)
    paying(there, PayerState.PAYING).take(NodeChanged("ready", None, locked))
    assert warnings(there.state) == ()
    assert held_up(there.state) is None
    assert there.told("rounds_not_payable") == there.told("rounds_payable") == []
    away = tuple(msgspec.structs.replace(one, connected=one.owner != WORKERS[0].pubkey) for one in locked)
    there.take(NodeChanged("ready", None, away))
    assert f"worker {WORKERS[0].pubkey[:8]}: its node is not connected" in warnings(there.state)
    paying(there, PayerState.PAID).take(NodeChanged("ready", None, locked))
    assert len(there.told("rounds_not_payable")) == 1, "once it is spent it is missing"
    assert "0 of 3 workers" in warnings(there.state)[0]


def test_a_worker_that_has_no_room_left_for_what_it_holds_is_not_warned() -> None:
    there = held()
    there.take(NodeChanged("ready", None, (peer(FEE, 0, 4, 0),)))
    assert held_up(there.state) is None
    assert there.told("rounds_not_payable") == []
    there.take(NodeChanged("ready", None, (peer(FEE - 1, 0, 4, 0),)))
    assert len(there.told("rounds_not_payable")) == 1, "a ticket is not locked"


def test_the_first_round_waits_until_enough_can_be_paid() -> None:
    there = leader(NodeChanged("ready", None, (peer(3 * NEED - 1, out=30),)))
    assert announced(there) == [], "the manifest's min_workers cannot be listed"
    there.take(NodeChanged("ready", None, (peer(3 * NEED, out=30, owner=WORKERS[1].pubkey), peer(0, out=0, owner=WORKERS[2].pubkey))))
    assert len(announced(there)) == 1
    assert there.told("locks_in_doubt") == [f"round 1: worker {WORKERS[2].pubkey[:8]}: its channels can carry 0 of 1000 sat"]


def test_validators_and_others_runs_have_no_warnings() -> None:
    there = Node(VALIDATORS[0], "validator").hear(until("enrolment worker 2"))
    there.take(DOWN)
    assert warnings(there.state) == ()
    assert there.told("rounds_not_payable") == []
