"""A worker and a coordinator that sells tickets and locks nothing: what it can take grows with the logarithm of the rounds."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import BuyTicket, Failed, TicketBought
from nostrain.core.rows import NodeState, Submission, WorkerMemory
from nostrain.core.tables import SubmissionState
from nostrain.core.timing import deadlines
from nostrain.protocol.messages import Message
from nostrain.units import Digest, UnixTime
from tests.core.actors import EXAMPLES, MESSAGES, Node, changed, say, until
from tests.core.payees import held
from tests.docs.examples import COORDINATOR, START, WORKERS

LENGTH = 300
"""Seconds from one announcement to the next."""


def announced(node: Node, number: int) -> Message:
    """The next announcement after a round that came to nothing; our replica stands there already."""
    after = number * LENGTH
    said = msgspec.structs.replace(
        EXAMPLES.announcement, round=number + 1, parent=node.run.head, deadlines=deadlines(UnixTime(START + after), EXAMPLES.manifest)
    )
    replica = msgspec.structs.replace(node.state.rows["replica"], head=node.run.head, round=number, confirming=None)
    node.state = NodeState({**node.state.rows, "replica": replica})
    return say(COORDINATOR, said, after)


def came_to_nothing(announcement: Message, number: int) -> Message:
    """The result of a round in which nobody's work was used."""
    return changed(
        "result",
        COORDINATOR,
        number * LENGTH + 200,
        round=number + 1,
        announcement=announcement.id,
        accepted=(),
        refused=(),
        committed=0,
        root=EXAMPLES.manifest.root,
        checkpoint=EXAMPLES.manifest.checkpoint,
        attestations=(),
        state_id=EXAMPLES.state_id,
    )


def worker() -> Node:
    """In a long run whose rounds are all escrowed by themselves."""
    node = Node(WORKERS[0], "worker").hear(until("enrolment worker 2")).ready().block()
    settlement = msgspec.structs.replace(EXAMPLES.manifest.settlement, epoch_rounds=1)
    run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(EXAMPLES.manifest, settlement=settlement, rounds=100))
    node.state = NodeState({**node.state.rows, "run": run})
    return node


def test_after_each_ticket_in_vain_it_lets_twice_as_many_rounds_pass() -> None:
    node, bought = worker(), []
    for number in range(20):
        opened = MESSAGES["announcement"] if number == 0 else announced(node, number)
        node.at(number * LENGTH).hear([opened])
        for effect in node.asks(BuyTicket):
            assert effect.announcement == opened.id
            bought.append(number)
            node.ends(effect, TicketBought(Digest("11" * 32), Digest("22" * 32)))
        mine = node.row(f"work/{opened.id}", Submission)
        assert (mine.state is SubmissionState.REFUSED) is (not bought or bought[-1] != number)
        node.hear([came_to_nothing(opened, number)])
        assert node.row(f"work/{opened.id}", Submission).state is SubmissionState.REFUSED
    # 1, 3, 7 rounds between them.
    assert bought == [0, 2, 6, 14]
    assert len(node.told("tickets_in_vain")) == 4


@pytest.mark.parametrize("ends", [None, Failed("the server asks again for what was paid")])
def test_a_ticket_that_never_comes_may_have_been_paid(ends: Failed | None) -> None:
    """Whoever takes the money and keeps the ticket gets no more than one that gives the ticket and locks nothing."""
    node, asked = worker(), []
    for number in range(8):
        opened = MESSAGES["announcement"] if number == 0 else announced(node, number)
        node.at(number * LENGTH).hear([opened])
        for effect in node.asks(BuyTicket):
            asked.append(number)
            if ends is not None:
                node.ends(effect, ends)
        node.hear([came_to_nothing(opened, number)])
    assert asked == [0, 2, 6]


def test_a_lock_makes_up_for_all_of_them() -> None:
    """The work may come to nothing all the same: what the ticket buys is the lock."""
    node = held()
    mine = Submission(announcement=EXAMPLES.round_id, state=SubmissionState.TRAINED, ticket=Digest("11" * 32))
    node.state = NodeState({**node.state.rows, f"work/{mine.announcement}": mine, "worker": WorkerMemory(in_vain=3)})
    node.hear([came_to_nothing(MESSAGES["announcement"], 0)])
    assert node.row("worker", WorkerMemory) == WorkerMemory()
    assert node.told("tickets_in_vain") == []
