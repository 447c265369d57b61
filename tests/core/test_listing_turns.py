"""Whom a round lists when it cannot list all: everybody in turn, and no crowd of newcomers instead of those who do the work."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from nostrain.core.listing import MAX_MISSED, listed
from nostrain.core.rows import NodeState, Run
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.liquidity_rows import LightningNode, Peer
from nostrain.units import EventId, Msat, Pubkey
from tests.core.actors import EXAMPLES, Node, until
from tests.docs.examples import COORDINATOR, WORKERS

NEED = 4 * EXAMPLES.manifest.level_msat
ROUNDS = 80


def head(number: int) -> EventId:
    """Of the chain, before a round."""
    return EventId(f"{number:064x}")


def keys(count: int, first: int = 1) -> list[Pubkey]:
    return [Pubkey(f"{number:064x}") for number in range(first, first + count)]


def coordinator(places: int) -> Node:
    """One whose channels pay for so many workers."""
    there = Node(COORDINATOR, "coordinator").hear(until("enrolment worker 2"))
    peer = Peer("hub", True, Msat(places * NEED), Msat(0), 4 * places, 0)
    there.state = NodeState({**there.state.rows, "lightning": LightningNode("ready", None, (peer,))})
    return there


def enrolled(run: Run, workers: list[Pubkey]) -> Run:
    entry = run.enrolled[WORKERS[0].pubkey]
    return msgspec.structs.replace(run, enrolled=dict.fromkeys(workers, entry))


def rounds(there: Node, run: Run, idle: frozenset[Pubkey] = frozenset()) -> Counter[Pubkey]:
    """How often each worker is listed; those who are `idle` never speak."""
    turns: Counter[Pubkey] = Counter()
    for number in range(1, ROUNDS):
        run = msgspec.structs.replace(run, round=number, head=head(number))
        workers = listed(Transaction(there.state, there.now), run)[0]
        turns.update(workers)
        missed = {key: run.missed.get(key, 0) + 1 if key in idle else 0 for key in workers}
        run = msgspec.structs.replace(run, missed={**run.missed, **missed})
    return turns


@pytest.mark.parametrize("places", [1, 2, 3, 5])
def test_everybody_has_a_turn(places: int) -> None:
    there, workers = coordinator(places), keys(6)
    turns = rounds(there, enrolled(there.run, workers))
    fair = sum(turns.values()) / len(workers)
    assert set(turns) == set(workers)
    assert all(fair / 2 < count < fair * 2 for count in turns.values()), turns


def test_a_crowd_of_newcomers_has_a_quarter_of_the_places() -> None:
    there, workers, crowd = coordinator(4), keys(4), keys(500, first=100)
    run = enrolled(there.run, workers + crowd)
    run = msgspec.structs.replace(run, missed=dict.fromkeys(workers, 0))
    turns = rounds(there, run, idle=frozenset(crowd))
    assert sum(turns[key] for key in workers) == 3 * (ROUNDS - 1)
    assert all(turns[key] <= 1 for key in crowd)


def test_who_was_absent_comes_after_who_was_not() -> None:
    there, workers = coordinator(2), keys(4)
    run = enrolled(there.run, workers)
    absent = dict(zip(workers, (0, MAX_MISSED - 1, 1, 0), strict=True))
    run = msgspec.structs.replace(run, missed=absent, round=1, head=head(1))
    assert listed(Transaction(there.state, there.now), run)[0] == (workers[0], workers[3])


def test_the_same_rows_list_the_same_workers_in_the_order_of_their_keys() -> None:
    there = coordinator(3)
    run = enrolled(there.run, keys(9)[::-1])
    found = listed(Transaction(there.state, there.now), run)[0]
    assert found == listed(Transaction(there.state, there.now), enrolled(there.run, keys(9)))[0] == tuple(sorted(found))
