"""A worker's submission: nothing is risked before the money is held, nothing is shown before the receipt is acknowledged."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Compute, Computed, Draw, Drawn, Failed, Fetch, Fetched, Upload, Uploaded
from nostrain.core.rows import NodeState, Submission, WorkerMemory
from nostrain.core.tables import SubmissionState
from nostrain.core.timing import deadlines
from nostrain.protocol.assignment import assignment, window_seed
from nostrain.protocol.digests import ranked
from nostrain.protocol.jobs import TrainJob, TrainResult
from nostrain.protocol.messages import Commitment, Enrolment, Message, Result, Reveal
from nostrain.units import Digest, UnixTime
from tests.core.actors import DATASET, EXAMPLES, LABELS, LIMITS, MESSAGES, Node, changed, say, until
from tests.docs.examples import COORDINATOR, START, WORKERS

S = SubmissionState
ME = WORKERS[0]
KEY = f"work/{EXAMPLES.round_id}"
MINE = {"enrolment worker 0", "commitment 0", "reveal 0"}


def others(first: str, last: str) -> list[Message]:
    """What everybody else says between two labels."""
    return [MESSAGES[label] for label in LABELS[LABELS.index(first) : LABELS.index(last) + 1] if label not in MINE]


def unpaid(node: Node) -> Node:
    """The same run, without money."""
    settlement = msgspec.structs.replace(EXAMPLES.manifest.settlement, mode="none")
    run = msgspec.structs.replace(node.run, manifest=msgspec.structs.replace(EXAMPLES.manifest, settlement=settlement))
    node.state = NodeState({**node.state.rows, "run": run})
    return node


def mine(node: Node) -> Submission:
    return node.row(KEY, Submission)


def begun() -> Node:
    """The round is open and lists us."""
    return unpaid(Node(ME, "worker").hear(until("enrolment worker 2"))).ready().hear(others("announcement", "oracle announcements 2")).at(8)


def training() -> Node:
    """Salt and shard are there."""
    node = begun()
    node.ends(node.asked(Draw, "salt"), Drawn(ME.salt("commitment")))
    node.ends(node.asked(Fetch, "shard"), Fetched("/blobs/shard"))
    return node


def trained(node: Node | None = None) -> Node:
    """The delta is on disk."""
    node = node or training()
    node.at(40)
    node.ends(node.asked(Compute, "train"), Computed(TrainResult(EXAMPLES.deltas[0], 2, 1, 15_360, 1, 1)))
    return node


def committed() -> Node:
    """We have committed."""
    node = trained()
    node.speak()
    return node


def pinned() -> Node:
    """The receipt is there, and acknowledged by two."""
    return committed().hear(others("commitment 1", "acknowledgement 1")).at(45)


def revealed() -> Node:
    """The bytes are on the servers and the reveal is out."""
    node = pinned()
    node.ends(node.asked(Upload), Uploaded(("https://blobs.example/delta",)))
    node.speak()
    return node


def test_a_submission_says_what_the_examples_say() -> None:
    node = committed()
    assert node.round.commitments.keys() == {MESSAGES["commitment 0"].id}
    node = revealed()
    said = node.round.reveals[ME.pubkey]
    assert (said.salt, said.blob.sha256) == (ME.salt("commitment"), EXAMPLES.deltas[0].sha256)
    assert said.blob.urls == ("https://blobs.example/delta",)
    assert mine(node).state is S.REVEALED


def test_it_trains_on_what_its_slot_was_assigned() -> None:
    job = training().asked(Compute, "train").job
    assert isinstance(job, TrainJob)
    slot = ranked(EXAMPLES.state_id, EXAMPLES.announcement.workers).index(ME.pubkey)
    assert job.seed == window_seed(EXAMPLES.state_id, slot)
    assert (job.steps_done, job.state_in) == (0, None)
    assert begun().asked(Fetch, "shard").blob.sha256 in {shard.sha256 for shard in DATASET.shards}


def test_a_worker_that_lost_its_private_files_goes_on_and_a_person_hears_of_it() -> None:
    node = training()
    node.at(40)
    node.ends(
        node.asked(Compute, "train"), Computed(TrainResult(EXAMPLES.deltas[0], 2, 1, 15_360, 1, 1, ("residual and moments /work/x: gone",)))
    )
    assert mine(node).state in (S.TRAINED, S.COMMITTED)
    (note,) = [note for note in node.notes if note.counter == "private_state_lost"]
    assert note.level == "warning"
    assert "residual and moments /work/x: gone" in note.text


def test_a_round_after_one_that_came_to_nothing_asks_for_other_work() -> None:
    """Training repeats exactly: on the same windows it would give the deltas that everybody has seen, and that count as copies."""
    node = begun()
    node.hear([changed("result", COORDINATOR, 30, accepted=(), attestations=(), state_id=EXAMPLES.state_id)])
    assert node.run.attempt == 1
    again = msgspec.structs.replace(
        EXAMPLES.announcement, round=2, parent=node.run.head, deadlines=deadlines(UnixTime(START + 40), EXAMPLES.manifest)
    )
    opened = say(COORDINATOR, again, 40)
    node.speak()
    there = msgspec.structs.replace(node.state.rows["replica"], head=node.run.head, round=1, confirming=None)
    node.state = NodeState({**node.state.rows, "replica": there})
    node.hear([opened]).at(41)
    key = f"work/{opened.id}"
    node.ends(next(effect for effect in node.asks(Draw) if effect.owner == key), Drawn("11" * 32))
    node.ends(next(effect for effect in node.asks(Fetch) if effect.owner == key), Fetched("/blobs/other"))
    job = next(effect.job for effect in node.asks(Compute) if effect.owner == key)
    assert isinstance(job, TrainJob)
    slot = ranked(EXAMPLES.state_id, EXAMPLES.announcement.workers).index(ME.pubkey)
    assert job.seed == window_seed(assignment(EXAMPLES.state_id, 1), slot)
    assert job.seed != window_seed(EXAMPLES.state_id, slot)


def test_nothing_is_shown_before_t_validators_acknowledged() -> None:
    node = committed().hear(others("commitment 1", "acknowledgement 0"))
    assert not node.asks(Upload)
    node.hear([MESSAGES["acknowledgement 1"]])
    assert node.asked(Upload).blob.sha256 == EXAMPLES.deltas[0].sha256
    assert not [message for message in node.speak() if isinstance(message.body, Reveal)]


def test_without_the_money_nothing_is_committed() -> None:
    node = Node(ME, "worker").hear(until("enrolment worker 2")).ready().hear(others("announcement", "oracle announcements 2")).at(8)
    node.ends(node.asked(Draw, "salt"), Drawn(ME.salt("commitment")))
    node.ends(node.asked(Fetch, "shard"), Fetched("/blobs/shard"))
    trained(node)
    assert not [message for message in node.speak() if isinstance(message.body, Commitment)]
    node.past(LIMITS.commit_by)
    assert mine(node).state is S.REFUSED


@pytest.mark.parametrize("stage", [begun, training])
def test_who_is_not_ready_in_time_drops_the_round(stage) -> None:  # type: ignore[no-untyped-def]
    node = stage().past(LIMITS.commit_by)
    assert mine(node).state is S.REFUSED
    assert not [effect for effect in node.asks(Compute) + node.asks(Draw) if effect.owner == KEY]


def test_a_receipt_that_comes_first_ends_the_training() -> None:
    pins = tuple(sorted(MESSAGES[f"commitment {n}"].id for n in (1, 2)))
    late = changed("receipt", COORDINATOR, LIMITS.commit_by - START, commitments=pins)
    node = training().hear([MESSAGES["commitment 1"], MESSAGES["commitment 2"], late])
    assert mine(node).state is S.REFUSED
    assert not [effect for effect in node.asks(Compute) if effect.owner == KEY]
    node = committed().hear([MESSAGES["commitment 1"], MESSAGES["commitment 2"], late])
    assert mine(node).reason == "the receipt does not pin our commitment"


@pytest.mark.parametrize(("stage", "kind"), [(begun, Fetch), (training, Compute), (pinned, Upload)])
def test_what_fails_for_good_ends_the_submission_and_not_the_node(stage, kind: type) -> None:  # type: ignore[no-untyped-def]
    node = stage()
    effect = next(effect for effect in node.asks(kind) if effect.owner == KEY)
    node.ends(effect, Failed("no room"))
    assert mine(node).state is S.REFUSED
    assert "no room" in (mine(node).reason or "")


def test_training_goes_on_from_the_last_state_that_was_used() -> None:
    node = revealed().hear(others("acknowledgement 2", "result"))
    assert mine(node).state is S.ACCEPTED
    assert node.row("worker", WorkerMemory).state_path == mine(node).state_out


def test_work_that_was_not_used_leaves_no_trace_in_the_training_state() -> None:
    node = revealed().hear([changed("result", COORDINATOR, accepted=(), attestations=(), state_id=EXAMPLES.state_id)])
    assert mine(node).state is S.REFUSED
    assert node.row("worker", WorkerMemory).state_path is None


def without_me() -> list[Message]:
    """The others go on, to a result that uses their work alone."""
    *before, closed = others("acknowledgement 2", "result")
    assert isinstance(closed.body, Result)
    kept = tuple(item for item in closed.body.accepted if item.worker != ME.pubkey)
    return [*before, changed("result", COORDINATOR, 70, accepted=kept)]


def test_a_newcomer_whose_work_was_not_used_goes_on_from_its_own_state_and_not_from_nothing() -> None:
    node = revealed().hear(without_me())
    assert mine(node).state is S.REFUSED
    memory = node.row("worker", WorkerMemory)
    assert (memory.state_path, memory.unused) == (mine(node).state_out, True)


def test_who_was_used_before_goes_on_from_there() -> None:
    node = revealed()
    node.state = NodeState({**node.state.rows, "worker": WorkerMemory("/work/used.state")})
    node.hear(without_me())
    memory = node.row("worker", WorkerMemory)
    assert (memory.state_path, memory.unused) == ("/work/used.state", False)


def test_a_worker_whose_replica_stands_elsewhere_does_not_begin() -> None:
    node = unpaid(Node(ME, "worker").hear(until("enrolment worker 2"))).ready()
    elsewhere = msgspec.structs.replace(node.state.rows["replica"], state_id=Digest("1" * 64))
    node.state = NodeState({**node.state.rows, "replica": elsewhere})
    node.hear(others("announcement", "announcement")).at(8)
    assert not node.has(KEY)


def test_who_is_not_listed_enrols_again_once_a_round() -> None:
    body = msgspec.structs.replace(EXAMPLES.announcement, workers=EXAMPLES.announcement.workers[1:])
    left_out = EXAMPLES.announcement.workers[0]
    party = next(one for one in WORKERS if one.pubkey == left_out)
    node = Node(party, "worker").hear([MESSAGES["manifest"]])
    node.speak()
    node.now = START + 5  # type: ignore[assignment]
    announced = changed("announcement", COORDINATOR, 5, workers=body.workers)
    node.hear([*until("enrolment worker 2")[1:], announced])
    said = [message for message in node.speak() if isinstance(message.body, Enrolment)]
    assert len(said) == 1
    assert said[0].created_at == START + 5
    assert not [message for message in node.at(20).speak() if isinstance(message.body, Enrolment)]


def test_the_enrolment_says_how_fast_training_was_and_again_when_that_doubles_or_halves() -> None:
    def said(node: Node) -> list[int]:
        return [message.body.tokens_per_s for message in node.speak() if isinstance(message.body, Enrolment)]

    node = training().at(40)
    node.ends(node.asked(Compute, "train"), Computed(TrainResult(EXAMPLES.deltas[0], 2, 1, 15_360, 2_000, 1)))
    assert said(node)[-1] == 7_680
    assert node.run.enrolled[ME.pubkey][2].tokens_per_s == 7_680
    for speed, told in ((4_000, []), (15_000, []), (3_840, [3_840]), (3_840, []), (10_000, [10_000])):
        memory = msgspec.structs.replace(node.row("worker", WorkerMemory), tokens_per_s=speed)
        node.state = NodeState({**node.state.rows, "worker": memory})
        assert said(node.at(node.now - START + 1)) == told
