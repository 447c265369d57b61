"""A node with its own copy of the model, brought to the stages at which it follows the run."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Compute, Computed, DatasetRead, Fetch, FetchDataset, Fetched, Outcome
from nostrain.core.rows import Replica
from nostrain.core.timing import deadlines
from nostrain.protocol.jobs import AggregateResult, InspectResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Announcement, Message, Result
from nostrain.units import Digest, EventId, UnixTime
from tests.core.actors import DATASET, EXAMPLES, MESSAGES, Node, say
from tests.docs.examples import COORDINATOR, START, WORKERS, Party

RESULT = MESSAGES["result"].body
assert isinstance(RESULT, Result)


def replica(node: Node) -> Replica:
    return node.row("replica", Replica)


def booted(party: Party = WORKERS[0], *roles: str) -> Node:
    """The first checkpoint is fetched and inspected, the dataset read."""
    node = Node(party, *roles).hear([MESSAGES["manifest"]])  # type: ignore[arg-type]
    node.ends(node.asked(FetchDataset), DatasetRead(DATASET))
    node.ends(node.asked(Fetch, "checkpoint"), Fetched("/blobs/checkpoint"))
    node.ends(node.asked(Compute, "inspect"), Computed(InspectResult(EXAMPLES.manifest.root)))
    return node


def stepped(state_id: Digest = RESULT.state_id, root: Digest = RESULT.root, weights: tuple[int, ...] | None = None) -> Computed:
    caps = tuple(item.weight for item in RESULT.accepted)
    return Computed(AggregateResult(state_id, root, BlobRef(Digest("4" * 64), 9), caps if weights is None else weights))


def advanced(node: Node, outcome: Outcome) -> Node:
    """The deltas of the result are there, and the outer step ended."""
    for effect in node.asks(Fetch):
        if effect.name.startswith("delta:"):
            node.ends(effect, Fetched(f"/blobs/{effect.blob.sha256}"))
    node.ends(node.asked(Compute, "aggregate"), outcome)
    return node


def next_announcement(parent: EventId = MESSAGES["result"].id, number: int = 2, after: int = 100) -> Message:
    """The next round, on the state of the examples' result."""
    body = msgspec.structs.replace(
        EXAMPLES.announcement,
        round=number,
        parent=parent,
        state_id=RESULT.state_id,
        deadlines=deadlines(UnixTime(START + after), EXAMPLES.manifest),
    )
    return say(COORDINATOR, body, after)


def empty(announcement: Message, after: int) -> Message:
    """A result that uses no work."""
    assert isinstance(announcement.body, Announcement)
    number = announcement.body.round
    body = msgspec.structs.replace(
        RESULT, announcement=announcement.id, round=number, attestations=(), accepted=(), state_id=announcement.body.state_id
    )
    return say(COORDINATOR, body, after)
