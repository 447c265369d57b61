"""What keeps a worker of a delayed run from being paid keeps it from training, and not for longer than it lasts."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import BuyTicket, Compute, Fetch, Fetched
from nostrain.core.escrow.rows import Payee, PayeeLevel
from nostrain.core.inputs import NodeChanged
from nostrain.core.rows import NodeState, Replica, Submission, WorkerMemory
from nostrain.core.tables import PayeeState, ReplicaState, SubmissionState
from nostrain.core.treasury.liquidity_rows import Peer
from nostrain.units import Digest, EventId, Msat
from tests.core.actors import EXAMPLES, RICH, Node, until
from tests.core.test_ahead import ME, job_of, joined, others, result, row, second, stands

POOR = NodeChanged("ready", None, (Peer("hub", True, Msat(1 << 50), Msat(0), 483, 483),))
"""A Lightning node whose channels cannot receive anything more."""


def paid() -> Node:
    """Our replica stands on the first state of a delayed run that sells tickets and pays each round."""
    node = Node(ME, "worker").hear(until("enrolment worker 2"))
    settlement = msgspec.structs.replace(EXAMPLES.manifest.settlement, epoch_rounds=1)
    manifest = msgspec.structs.replace(EXAMPLES.manifest, settlement=settlement, delay=1, rounds=8)
    node.state = NodeState({**node.state.rows, "run": msgspec.structs.replace(node.run, manifest=manifest)})
    return node.ready()


def opened(node: Node) -> Node:
    """The first round is open."""
    return node.hear(others("announcement", "announcement")).at(8)


def fetched(node: Node) -> Node:
    """The shards are there."""
    for fetch in node.asks(Fetch):
        node.ends(fetch, Fetched(f"/blobs/{fetch.blob.sha256[:8]}"))
    return node


def submission(node: Node, announcement: EventId) -> Submission:
    return node.row(f"work/{announcement}", Submission)


def test_the_rounds_that_are_let_pass_come_to_an_end() -> None:
    """Nothing is fetched or trained for them, and they are counted off all the same."""
    node = paid()
    node.state = NodeState({**node.state.rows, "worker": WorkerMemory(in_vain=2, pass_over=2)})
    opened(node)
    assert submission(node, EXAMPLES.round_id).state is SubmissionState.REFUSED
    assert not node.asks(Fetch)
    assert node.row("worker", WorkerMemory).pass_over == 1
    assert submission(result(node, empty=True), EXAMPLES.round_id).state is SubmissionState.REFUSED
    passed = second(node)
    assert submission(node, passed).state is SubmissionState.REFUSED
    assert node.row("worker", WorkerMemory).pass_over == 0
    fetched(node)
    assert job_of(node).steps_done == 2 * EXAMPLES.manifest.training.inner_steps, "for the third round, which is not let pass"
    assert not node.asks(BuyTicket)


def test_who_cannot_be_paid_trains_as_soon_as_it_can_from_the_state_where_its_replica_was() -> None:
    node = paid()
    node.take(POOR)
    opened(node)
    assert not node.asks(Compute)
    assert not node.asks(Fetch)
    assert not node.has(f"work/{EXAMPLES.round_id}")
    stood = node.row("replica", Replica)
    node.state = NodeState({**node.state.rows, "replica": msgspec.structs.replace(stood, state_id=Digest("1" * 64))})
    node.take(RICH)
    fetched(node)
    assert submission(node, EXAMPLES.round_id).ticket is None
    assert node.asked(BuyTicket).announcement == EXAMPLES.round_id
    assert (job_of(node).steps_done, job_of(node).checkpoint) == (0, "/work/checkpoint")


def test_what_our_own_escrow_takes_of_the_room_for_now_keeps_nobody_from_training_for_the_next_round() -> None:
    node = opened(paid())
    held = Payee(EXAMPLES.round_id, ME.pubkey, levels=(PayeeLevel(PayeeState.HELD),), chosen=(0,), refused="kept out of this test")
    mine = msgspec.structs.replace(submission(node, EXAMPLES.round_id), state=SubmissionState.REFUSED)
    rows: dict[str, Payee | Submission] = {f"payee/{EXAMPLES.round_id}": held, f"work/{EXAMPLES.round_id}": mine}
    kept = {key: one for key, one in node.state.rows.items() if not key.startswith(("ahead/", "effect/ahead"))}
    node.state = NodeState({**kept, **rows})
    node.take(POOR)
    fetched(node)
    assert job_of(node).steps_done == EXAMPLES.manifest.training.inner_steps


def test_who_came_too_late_for_the_open_round_does_not_wait_for_its_end_to_train_for_the_next() -> None:
    """It is listed, and has never stood on the state that the open round's deltas are trained from."""
    node = joined()
    away = msgspec.structs.replace(node.row("replica", Replica), state=ReplicaState.BOOTING, checkpoint=None, state_id=None)
    node.state = NodeState({**node.state.rows, "replica": away})
    announcement = second(result(opened(node)))
    fetched(stands(node, "/work/next"))
    assert not node.has(f"work/{announcement}")
    assert row(node, 2).checkpoint is None
    assert (job_of(node).checkpoint, job_of(node).steps_done) == ("/work/next", 2 * EXAMPLES.manifest.training.inner_steps)
