"""A delayed run: a worker trains for the next round while the open one is scored; what becomes of that when the open one does not go well."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.ahead_rows import Ahead
from nostrain.core.effects import Compute, Computed, Draw, Drawn, Failed, Fetch, Fetched
from nostrain.core.rows import NodeState, Replica, Run, Submission, WorkerMemory
from nostrain.core.tables import ReplicaState, SubmissionState
from nostrain.core.timing import deadlines
from nostrain.protocol.assignment import assigned_ahead
from nostrain.protocol.jobs import OwnStep, TrainJob, TrainResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Commitment, Message
from nostrain.units import Digest, EventId, UnixTime
from tests.core.actors import DATASET, EXAMPLES, LABELS, LIMITS, MESSAGES, Node, changed, refuses, say, until
from tests.docs.examples import COORDINATOR, START, WORKERS

S = SubmissionState
ME = WORKERS[0]
KEY = f"work/{EXAMPLES.round_id}"
MINE = {"enrolment worker 0", "commitment 0", "reveal 0"}


def others(first: str, last: str) -> list[Message]:
    """What everybody else says between two labels, commitments as in a delayed run."""
    said = [label for label in LABELS[LABELS.index(first) : LABELS.index(last) + 1] if label not in MINE]
    return [changed(label, WORKERS[int(label[-1])], 40, **BASE) if label.startswith("commitment") else MESSAGES[label] for label in said]


BASE = {"trained_from": EXAMPLES.state_id}


def joined(rounds: int = 8) -> Node:
    """Our replica stands on the first state of a delayed run that pays nothing."""
    node = Node(ME, "worker").hear(until("enrolment worker 2"))
    settlement = msgspec.structs.replace(EXAMPLES.manifest.settlement, mode="none")
    manifest = msgspec.structs.replace(EXAMPLES.manifest, settlement=settlement, delay=1, rounds=rounds)
    node.state = NodeState({**node.state.rows, "run": msgspec.structs.replace(node.run, manifest=manifest)})
    return node.ready()


def begun(rounds: int = 8) -> Node:
    """The first round is open and lists us; salt and shards are there."""
    node = joined(rounds).hear(others("announcement", "oracle announcements 2")).at(8)
    node.ends(node.asked(Draw, "salt"), Drawn("5a" * 32))
    for fetch in node.asks(Fetch):
        node.ends(fetch, Fetched(f"/blobs/{fetch.blob.sha256[:8]}"))
    return node


def job_of(node: Node) -> TrainJob:
    """The one training that is under way."""
    job = node.asked(Compute, "train").job
    assert isinstance(job, TrainJob)
    return job


def trained(node: Node, after: int = 20) -> Node:
    """The training that is under way is through; what there is to say is said."""
    blob = BlobRef(Digest(f"{node.asked(Compute, 'train').owner[-2:]}" * 32), 1000)
    node.at(after).ends(node.asked(Compute, "train"), Computed(TrainResult(blob, 2, 1, 15_360, 1, 1)))
    return node


def row(node: Node, number: int) -> Ahead:
    return node.row(f"ahead/{number:05d}", Ahead)


def second(node: Node, after: int = 60, *, workers: tuple[str, ...] = EXAMPLES.announcement.workers) -> EventId:
    """The second round opens on the state where the chain stands; its id."""
    body = msgspec.structs.replace(
        EXAMPLES.announcement,
        round=2,
        parent=node.run.head,
        state_id=node.run.state_id,
        workers=workers,
        deadlines=deadlines(UnixTime(START + after), EXAMPLES.manifest),
    )
    message = say(COORDINATOR, body, after)
    node.hear([message]).at(after)
    return message.id


def stands(node: Node, checkpoint: str) -> Node:
    """Our replica has computed the state where the chain stands."""
    there = msgspec.structs.replace(
        node.row("replica", Replica),
        head=node.run.head,
        state=ReplicaState.READY,
        state_id=node.run.state_id,
        round=node.run.round,
        checkpoint=checkpoint,
        confirming=None,
    )
    kept = {key: one for key, one in node.state.rows.items() if not key.startswith("effect/replica")}
    node.state = NodeState({**kept, "replica": there})
    return node.at(node.now - START + 1)


def used(node: Node) -> Node:
    """Our delta of the first round is committed; the result uses it."""
    node.speak()
    mine = node.row(KEY, Submission)
    node.state = NodeState({**node.state.rows, KEY: msgspec.structs.replace(mine, state=S.REVEALED)})
    return result(node)


def result(node: Node, *, empty: bool = False) -> Node:
    """The first round closes: it moves the chain, whatever its attestations say."""
    if empty:
        return node.hear([changed("result", COORDINATOR, accepted=(), attestations=(), state_id=EXAMPLES.state_id)])
    rounds = {**node.state.rows, f"round/{EXAMPLES.round_id}": msgspec.structs.replace(node.round, **everything())}
    node.state = NodeState(rounds)
    return node.hear([MESSAGES["result"]])


def everything() -> dict[str, object]:
    """What was said in the example's round: the result is checked against it."""
    listener = Node(COORDINATOR).hear(until("attestation 2"))
    names = ("commitments", "receipt", "acknowledgements", "reveals", "verdicts", "attestations", "hashes")
    return {name: getattr(listener.round, name) for name in names}


def test_what_is_trained_follows_from_the_state_before_the_number_and_the_key() -> None:
    node = begun()
    work = assigned_ahead(EXAMPLES.state_id, 1, ME.pubkey, len(DATASET.shards))
    job = job_of(node)
    assert (job.seed, job.steps_done, job.state_in, job.checkpoint) == (work.seed, 0, None, "/work/checkpoint")
    assert job.shard.endswith(DATASET.shards[work.shard].sha256[:8])


def test_the_next_training_begins_with_what_the_last_one_left_before_anything_is_said_of_it() -> None:
    node = trained(begun())
    job = job_of(node)
    assert (job.state_in, job.steps_done) == (row(node, 1).state_out, EXAMPLES.manifest.training.inner_steps)
    delta = row(node, 1).delta
    assert delta is not None
    assert job.own == OwnStep(EXAMPLES.manifest.outer, delta.sha256, f"{row(node, 1).delta_path}", len(EXAMPLES.announcement.workers))
    assert job.seed == assigned_ahead(EXAMPLES.state_id, 2, ME.pubkey, len(DATASET.shards)).seed
    (said,) = [message.body for message in node.speak() if isinstance(message.body, Commitment)]
    assert (said.state_id, said.trained_from) == (EXAMPLES.state_id, EXAMPLES.state_id)
    assert node.row(KEY, Submission).state is S.COMMITTED


def test_nobody_trains_beyond_the_last_round() -> None:
    node = trained(begun(rounds=1))
    assert not node.asks(Compute)
    assert not node.has("ahead/00002")


def test_a_shard_is_fetched_as_soon_as_it_is_known_what_state_it_is_for() -> None:
    """Our training for the second round goes on, and our replica has not come to the state of the result yet."""
    node = used(trained(begun()))
    assert job_of(node).steps_done == EXAMPLES.manifest.training.inner_steps
    assert row(node, 3).base == node.run.state_id != EXAMPLES.state_id
    assert node.asked(Fetch, "shard").blob.sha256 == row(node, 3).shard
    assert row(node, 3).checkpoint is None


def test_it_commits_when_it_has_computed_the_announced_state_itself_and_trains_on_from_there() -> None:
    node = used(trained(begun()))
    node.ends(node.asked(Fetch, "shard"), Fetched("/blobs/third"))
    key = f"work/{second(node)}"
    node.ends(node.asked(Draw, "salt"), Drawn("5b" * 32))
    trained(node, 70)
    assert node.row(key, Submission).state is S.TRAINED
    assert not [message for message in node.speak() if isinstance(message.body, Commitment)]
    assert not [effect for effect in node.asks(Compute) if effect.name == "train"], "the state to train from is not there either"
    stands(node, "/work/next")
    (said,) = [message.body for message in node.speak() if isinstance(message.body, Commitment)]
    assert (said.state_id, said.trained_from) == (node.run.state_id, EXAMPLES.state_id)
    job = job_of(node)
    assert (job.checkpoint, job.state_in, job.shard) == ("/work/next", row(node, 2).state_out, "/blobs/third")


def test_a_refused_delta_takes_what_it_sent_with_it_and_not_what_it_left_behind() -> None:
    """Training has gone on from its residual: that is not repeated."""
    node = trained(begun())
    node.speak()
    second_job = job_of(node)
    result(node, empty=True)
    assert node.row(KEY, Submission).state is S.REFUSED
    assert job_of(node) == second_job
    assert second_job.state_in == node.row(KEY, Submission).state_out
    assert not node.row("worker", WorkerMemory).state_path


def test_after_a_round_that_came_to_nothing_the_windows_are_others() -> None:
    node = trained(begun())
    node.speak()
    result(node, empty=True)
    assert row(node, 3).base == row(node, 2).base == EXAMPLES.state_id
    seeds = {assigned_ahead(EXAMPLES.state_id, number, ME.pubkey, len(DATASET.shards)).seed for number in (1, 2, 3)}
    assert len(seeds) == 3


def test_who_is_not_listed_drops_what_it_trained_and_begins_anew_from_what_was_used() -> None:
    node = used(trained(begun()))
    node.ends(node.asked(Fetch, "shard"), Fetched("/blobs/third"))
    trained(node)
    stands(node, "/work/next")
    left = row(node, 2).state_out
    second(node, workers=tuple(key for key in EXAMPLES.announcement.workers if key != ME.pubkey))
    assert not node.has("ahead/00002")
    assert job_of(node).state_in == node.row(KEY, Submission).state_out != left
    assert job_of(node).own is None


def test_a_round_that_was_missed_ends_its_training_and_the_next_begins_with_what_was_used_last() -> None:
    node = begun().past(LIMITS.commit_by)
    assert node.row(KEY, Submission).state is S.REFUSED
    assert not node.has("ahead/00001")
    job = job_of(node)
    assert (job.steps_done, job.state_in) == (EXAMPLES.manifest.training.inner_steps, None)


def test_a_training_that_fails_costs_one_round() -> None:
    node = begun()
    node.ends(node.asked(Compute, "train"), Failed("diverged"))
    assert not node.has("ahead/00001")
    assert node.row(KEY, Submission).reason == "train: diverged"
    assert job_of(node).state_in is None


@pytest.mark.parametrize("trouble", ["halted", "distrusted", "diverged"])
def test_what_nobody_will_pay_for_is_not_trained(trouble: str) -> None:
    node = trained(begun())
    node.speak()
    rows: dict[str, Run | Replica]
    if trouble == "diverged":
        rows = {"replica": msgspec.structs.replace(node.row("replica", Replica), state=ReplicaState.DIVERGED)}
    else:
        rows = {"run": msgspec.structs.replace(node.run, **{trouble: "because"})}
    node.state = NodeState({**node.state.rows, **rows})
    node.at(30)
    assert not node.asks(Compute)
    assert not [key for key in node.state.rows if key.startswith("ahead/")]


def test_who_comes_while_a_round_is_open_sits_it_out_and_trains_for_the_next() -> None:
    """Nobody can train for the open round who has not its base; listed or not."""
    node = joined()
    elsewhere = msgspec.structs.replace(node.row("replica", Replica), state_id=Digest("1" * 64))
    node.state = NodeState({**node.state.rows, "replica": elsewhere})
    node.hear(others("announcement", "announcement")).at(8)
    assert not node.has(KEY)
    assert row(node, 1).checkpoint is None


def test_a_commitment_names_the_state_that_it_was_trained_from_in_a_delayed_run_and_nowhere_else() -> None:
    refuses(until("oracle announcements 2"), changed("commitment 0", ME, 40, **BASE), "this round trains from the announced one")
    node = joined().hear(others("announcement", "oracle announcements 2"))
    node.hear([changed("commitment 1", WORKERS[1], 40), changed("commitment 1", WORKERS[1], 41, trained_from=Digest("1" * 64))])
    assert len(node.told("messages_refused")) == 2
    assert not node.round.commitments
    node.hear([changed("commitment 1", WORKERS[1], 42, **BASE)])
    assert len(node.round.commitments) == 1
