"""A node that lies many rounds behind, as rows: what was said in those rounds is folded already, only its replica has not followed."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Compute, Computed, DatasetRead, Fetch, FetchDataset, Fetched
from nostrain.core.rows import NodeState, Replica, Round, Run
from nostrain.core.tables import ReplicaState
from nostrain.hashes import sha256_hex
from nostrain.protocol.digests import next_state_id
from nostrain.protocol.jobs import InspectResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Result, Reveal
from nostrain.units import Digest, EventId, Pubkey
from tests.core.actors import DATASET, EXAMPLES, MESSAGES, Node
from tests.core.replicas import RESULT
from tests.docs.examples import VALIDATORS, Party

CHECKPOINT = EXAMPLES.manifest.checkpoint.size
NEWCOMER = Party("newcomer")
LATER = 10_000
EVERYBODY = tuple(party.pubkey for party in VALIDATORS)
Words = dict[Pubkey, tuple[Digest, Digest]]


def named(what: str, number: int) -> Digest:
    return Digest(sha256_hex(f"{what} {number}".encode()))


def root(number: int) -> Digest:
    """Of the state after a round."""
    return named("root", number)


def checkpoint(number: int) -> Digest:
    """The file of the state after a round."""
    return named("checkpoint", number)


def said(number: int, state_id: Digest, who: tuple[Pubkey, ...] = EVERYBODY) -> Words:
    """They confirm the state after a round."""
    return dict.fromkeys(who, (state_id, root(number)))


def behind(rounds: int, *, delta_bytes: int = 1_000, party: Party = NEWCOMER, quiet_from: int = 1_000, lie_at: int = 0) -> Node:
    """A node that has heard all of so many rounds with two deltas each, and has no state yet. All validators confirmed all rounds before
    `quiet_from`; the state id of round `lie_at` does not follow from its deltas."""
    node = Node(party).hear([MESSAGES["manifest"]])
    run = node.run
    head, state_id, rows = EventId(run.id), run.state_id, dict(node.state.rows)
    announcements, results = {}, {}
    for number in range(1, rounds + 1):
        opened = msgspec.structs.replace(EXAMPLES.announcement, round=number, parent=head, state_id=state_id)
        announcement, result_id = EventId(named("announcement", number)), EventId(named("result", number))
        deltas = [BlobRef(named("delta", 2 * number + at), delta_bytes) for at in range(2)]
        accepted = tuple(msgspec.structs.replace(item, delta=delta) for item, delta in zip(RESULT.accepted[:2], deltas, strict=True))
        weights = [item.weight for item in accepted]
        state_id = next_state_id(state_id, [delta.sha256 for delta in deltas], weights, run.manifest.outer, RESULT.committed)
        if number == lie_at:
            state_id = named("another state", number)
        file = BlobRef(checkpoint(number), CHECKPOINT, ("https://blobs.example/x",))
        result = msgspec.structs.replace(
            RESULT, announcement=announcement, round=number, accepted=accepted, state_id=state_id, root=root(number), checkpoint=file
        )
        example = MESSAGES["reveal 0"].body
        assert isinstance(example, Reveal)
        reveals = {item.worker: msgspec.structs.replace(example, blob=item.delta) for item in accepted}
        rows[f"round/{announcement}"] = Round(
            announcement,
            opened,
            reveals=reveals,
            result=(result_id, result),
            confirmations=said(number, state_id) if number < quiet_from else {},
        )
        announcements[head], results[announcement] = announcement, result_id
        head = result_id
    manifest = msgspec.structs.replace(run.manifest, rounds=1_000)
    rows["run"] = Run(run.id, run.coordinator, manifest, head, state_id, rounds, announcements=announcements, results=results)
    node.state = NodeState(rows)
    return node.at(LATER)


def at(node: Node, number: int) -> Round:
    """The row of a round."""
    return node.row(f"round/{named('announcement', number)}", Round)


def result_at(node: Node, number: int) -> Result:
    """What closed it."""
    closed = at(node, number).result
    assert closed is not None
    return closed[1]


def confirm(node: Node, number: int, words: Words) -> Node:
    """What was confirmed of a round is that."""
    row = msgspec.structs.replace(at(node, number), confirmations=words)
    node.state = NodeState({**node.state.rows, f"round/{row.id}": row})
    return node.at(LATER)


def stands(node: Node, number: int = 0) -> Node:
    """Its replica has computed the state after a round, and it has the dataset."""
    if node.asks(FetchDataset):
        node.ends(node.asked(FetchDataset), DatasetRead(DATASET))
    run, round_ = node.run, node.state.rows.get(f"round/{named('announcement', number)}")
    result = round_.result if isinstance(round_, Round) else None
    row = Replica(
        head=result[0] if result else EventId(run.id),
        state=ReplicaState.READY,
        round=number,
        dataset=DATASET,
        checkpoint="/work/checkpoint",
        blob=result[1].checkpoint if result else run.manifest.checkpoint,
        state_id=result[1].state_id if result else EXAMPLES.state_id,
        root=result[1].root if result else run.manifest.root,
    )
    rows = {key: kept for key, kept in node.state.rows.items() if not key.startswith("effect/replica")}
    node.state = NodeState({**rows, "replica": row})
    return node.at(LATER)


def goal(node: Node) -> Digest | None:
    """The checkpoint that is being fetched instead of deltas."""
    names = [effect.name for effect in node.asks(Fetch) if effect.owner == "replica"]
    leaps = [name for name in names if name.startswith("leap:")]
    assert len(leaps) <= 1
    assert not leaps or names == leaps, "nothing is fetched beside it"
    return Digest(leaps[0].removeprefix("leap:")) if leaps else None


def lands(node: Node, found: Digest) -> Node:
    """The file came, and has that root."""
    node.ends(node.asked(Fetch, "leap:"), Fetched("/blobs/leapt"))
    node.ends(node.asked(Compute, "inspect:"), Computed(InspectResult(found)))
    return node
