"""Shards that are kept: the least recently used go first, never one that something still names, and none is fetched while it goes."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core import cache
from nostrain.core.effects import Evict, Fetch, Fetched, Ok
from nostrain.core.rows import Cache, Duty, NodeState, Outstanding, Replica, Round, Row, Submission
from nostrain.core.tables import DutyState, SubmissionState
from nostrain.core.transaction import Transaction
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Reveal
from nostrain.units import Digest, EventId
from tests.core.actors import DATASET, EXAMPLES, LABELS, LIMITS, MESSAGES, Node, until
from tests.docs.examples import WORKERS

SHARDS = [shard.sha256 for shard in DATASET.shards]
ROUND = EventId("ab" * 32)


def node(limit: int, held: list[Digest], **rows: Row) -> Node:
    """A worker with room for `limit` bytes that holds shards of 1000 each."""
    one = Node(WORKERS[0], "worker")
    one.identity = msgspec.structs.replace(one.identity, cache_bytes=limit)
    kept = {name.replace("__", "/"): row for name, row in rows.items()}
    row = Cache(tuple((digest, 1000) for digest in held))
    one.state = NodeState({**one.state.rows, "node": one.identity, "cache": row, "replica": Replica(ROUND, dataset=DATASET), **kept})
    return one


def evicted(one: Node) -> list[Digest]:
    one.at(1)
    return sorted(effect.blob for effect in one.asks(Evict))


@pytest.mark.parametrize(("limit", "gone"), [(4000, 0), (3999, 1), (3000, 1), (2999, 2), (1, 4), (0, 0)])
def test_the_oldest_go_until_the_rest_fits(limit: int, gone: int) -> None:
    one = node(limit, SHARDS[:4])
    assert evicted(one) == sorted(SHARDS[:gone])
    assert one.row("cache", Cache).held == tuple((digest, 1000) for digest in SHARDS[gone:4])


def test_use_makes_a_shard_the_newest_and_a_stranger_is_not_counted() -> None:
    one = node(9000, SHARDS[:3])
    tx = Transaction(one.state, one.now)
    cache.used(tx, DATASET, SHARDS[0])
    cache.used(tx, DATASET, SHARDS[5])
    cache.used(tx, DATASET, Digest("ee" * 32))
    assert [digest for digest, _ in tx.need("cache", Cache).held] == [SHARDS[1], SHARDS[2], SHARDS[0], SHARDS[5]]


def reveal(digest: Digest) -> Round:
    body = MESSAGES["reveal 0"].body
    assert isinstance(body, Reveal)
    return Round(
        EXAMPLES.round_id, EXAMPLES.announcement, reveals={WORKERS[0].pubkey: msgspec.structs.replace(body, blob=BlobRef(digest, 9))}
    )


@pytest.mark.parametrize(
    ("name", "row", "kept"),
    [
        ("work__1", Submission(ROUND, SubmissionState.TRAINING, shard=SHARDS[0]), True),
        ("work__1", Submission(ROUND, SubmissionState.REFUSED, shard=SHARDS[0]), False),
        ("duty__1", Duty(ROUND, DutyState.EVALUATING, paths={SHARDS[0]: "/blobs/0"}), True),
        ("duty__1", Duty(ROUND, DutyState.ATTESTED, paths={SHARDS[0]: "/blobs/0"}), False),
        ("replica", Replica(ROUND, dataset=DATASET, paths={SHARDS[0]: "/blobs/0"}), True),
        ("replica", Replica(ROUND, dataset=msgspec.structs.replace(DATASET, validation=DATASET.shards[0])), True),
        ("round__1", reveal(SHARDS[0]), True),
        ("effect__duty/1#x", Outstanding(Fetch("duty/1", "x", BlobRef(SHARDS[0], 1000))), True),
    ],
)
def test_what_is_in_use_stays(name: str, row: Row, kept: bool) -> None:
    """Also where somebody lists a shard as something else: reveals it as a delta, or lists it as validation shard too."""
    one = node(1, SHARDS[:2])
    tx = Transaction(NodeState({**one.state.rows, name.replace("__", "/"): row}), one.now)
    cache.decide(tx)
    gone = [effect.blob for effect in tx.emitted if isinstance(effect, Evict)]
    assert gone == ([SHARDS[1]] if kept else SHARDS[:2])


def test_a_worker_fetches_a_shard_that_goes_once_it_is_gone() -> None:
    worker = Node(WORKERS[0], "worker")
    worker.identity = msgspec.structs.replace(worker.identity, cache_bytes=1)
    worker.state = NodeState({**worker.state.rows, "node": worker.identity})
    leaving = {f"effect/cache#{digest}": Outstanding(Evict("cache", digest, digest)) for digest in SHARDS}
    worker.hear(until("enrolment worker 2")).ready()
    worker.state = NodeState({**worker.state.rows, **leaving})
    first, last = LABELS.index("announcement"), LABELS.index("oracle announcements 2")
    worker.hear([MESSAGES[label] for label in LABELS[first : last + 1]]).at(8)
    mine = worker.row(f"work/{EXAMPLES.round_id}", Submission)
    assert mine.shard in SHARDS
    assert not [effect for effect in worker.asks(Fetch) if effect.name == "shard"]
    worker.ends(next(effect for effect in worker.asks(Evict) if effect.blob == mine.shard), Ok())
    worker.ends(worker.asked(Fetch, "shard"), Fetched("/blobs/shard"))
    assert worker.row("cache", Cache).held == ((mine.shard, 1000),)
    assert not [effect for effect in worker.asks(Evict) if effect.blob == mine.shard], "it is in use"
    worker.past(LIMITS.commit_by)
    assert [effect.blob for effect in worker.asks(Evict) if effect.blob == mine.shard] == [mine.shard]
