"""What a forgotten round leaves on disk: what may go, and what a row that is left still names."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Discard, Fetch, Ok
from nostrain.core.retention import leavings
from nostrain.core.rows import NodeState, Outstanding, Replica, Round, WorkerMemory
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Result, Reveal
from nostrain.units import Digest
from tests.core.actors import EXAMPLES, MESSAGES, Node
from tests.core.long_run import long_run, rounds
from tests.core.replicas import advanced, stepped
from tests.docs.examples import COORDINATOR, WORKERS

RESULT = MESSAGES["result"].body
assert isinstance(RESULT, Result)


def revealed() -> set[Digest]:
    return {message.body.blob.sha256 for message in MESSAGES.values() if isinstance(message.body, Reveal)}


def caught_up(archive: bool = False) -> Node:
    """A node at the end of the first round."""
    node = long_run()
    node.identity = msgspec.structs.replace(node.identity, archive=archive)
    node.state = NodeState({**node.state.rows, "node": node.identity})
    advanced(node, stepped())
    node.speak()
    return node


def first(node: Node) -> Discard:
    """What is to go with the first round, once many more have passed."""
    node.hear(rounds(20))
    return node.asked(Discard, "00001")


@pytest.mark.parametrize("archive", [False, True])
def test_deltas_of_a_forgotten_round_go_but_an_archive_keeps_them_for_newcomers(archive: bool) -> None:
    asked = first(caught_up(archive))
    assert set(asked.blobs) == (set() if archive else revealed())
    assert set(asked.owners) == {COORDINATOR.pubkey, *EXAMPLES.announcement.workers}
    assert (asked.folder, asked.last) == ("/work", 1)


def test_the_checkpoint_goes_with_its_round_unless_it_is_the_newest() -> None:
    node = caught_up()
    replica = node.row("replica", Replica)
    assert RESULT.checkpoint.sha256 not in first(node).blobs, "rounds that use no work go on from it"
    round_ = Round(EXAMPLES.round_id, EXAMPLES.announcement, result=(MESSAGES["result"].id, RESULT))
    assert leavings(round_, archive=True) == [RESULT.checkpoint.sha256]
    assert replica.checkpoint is not None


def test_what_an_effect_or_a_row_names_stays() -> None:
    node = caught_up()
    needed = min(revealed())
    fetch = Fetch("replica", "delta:x", BlobRef(needed, 9))
    memory = WorkerMemory("/work/00001-aabb.state")
    node.state = NodeState({**node.state.rows, f"effect/{fetch.id}": Outstanding(fetch), "worker": memory})
    asked = first(node)
    assert set(asked.blobs) == revealed() - {needed}
    assert "00001-aabb.state" in asked.keep


def test_it_is_listed_until_it_is_done() -> None:
    node = caught_up()
    asked = first(node)
    node.at(5000)
    assert node.asked(Discard, "00001") == asked
    node.ends(asked, Ok())
    assert asked not in node.asks(Discard)


def test_what_is_promised_anew_before_it_is_gone_stays() -> None:
    node = caught_up()
    asked = first(node)
    again = min(asked.blobs)
    newest = max((row for row in node.state.rows.values() if isinstance(row, Round)), key=lambda row: row.announcement.round)
    example = MESSAGES["reveal 0"].body
    assert isinstance(example, Reveal)
    reveal = msgspec.structs.replace(example, blob=BlobRef(again, 9))
    row = msgspec.structs.replace(newest, reveals={WORKERS[0].pubkey: reveal})
    node.state = NodeState({**node.state.rows, f"round/{row.id}": row})
    node.at(5000)
    assert set(node.asked(Discard, "00001").blobs) == set(asked.blobs) - {again}


def test_who_only_listens_has_nothing_to_remove() -> None:
    node = caught_up()
    node.identity = msgspec.structs.replace(node.identity, work_dir="")
    node.state = NodeState({**node.state.rows, "node": node.identity})
    node.hear(rounds(20))
    assert not node.asks(Discard)
