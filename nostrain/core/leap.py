"""Joining in the middle: a replica takes the checkpoint of a later round instead of repeating the rounds before it (docs/adr/0061).

The small signed events of those rounds are folded as ever; what is not fetched are their deltas. Of the state that it leaps to, a replica has
checked that the ids of all states since its own follow from the results, delta by delta, and that the file has the root that enough of the
round's validators say they computed. That root and the weights it believes them; nothing it believes the coordinator or a server.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

import msgspec

from nostrain.core.bounds import checkpoint_problem
from nostrain.core.effects import Compute, Fetch
from nostrain.core.leap_rows import Leap
from nostrain.core.rows import Replica, Round, Run
from nostrain.core.run import located, with_item
from nostrain.core.tables import ReplicaState, advance
from nostrain.core.transaction import Transaction
from nostrain.protocol.digests import initial_state_id, next_state_id
from nostrain.protocol.jobs import InspectJob, InspectResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Result
from nostrain.units import Digest, EventId, UnixTime

KEY: Final = "replica"
AGAIN_S: Final = 600
"""After so long a checkpoint that nobody served is asked for once more, if it still is worth it."""
TRIES: Final = 8
"""After so many in vain it goes on from round to round: a run has thousands of rounds, and servers keep the checkpoints of the last eight."""


def begin(tx: Transaction, run: Run, replica: Replica) -> bool:
    """Set out for a checkpoint, if there is one that is worth it; whether there is. What was being fetched meanwhile is not needed any more."""
    round_ = target(tx, run, replica)
    if round_ is None:
        return False
    stop_fetching(tx)
    state = advance("replica", replica.state, ReplicaState.LEAPING)
    tx.put(KEY, msgspec.structs.replace(replica, state=state, leap=Leap(round_.id), paths={}))
    number = round_.announcement.round
    tx.note("info", "leaps", f"{number - replica.round} rounds behind: taking the checkpoint of round {number} instead of their deltas")
    return True


def stop_fetching(tx: Transaction) -> None:
    """Take back what is being fetched for the replica, but for the dataset's manifest."""
    for key in tx.keys(f"effect/{KEY}#"):
        if isinstance(tx.outstanding(key.removeprefix("effect/")), Fetch):
            tx.delete(key)


def step(tx: Transaction, run: Run, leap: Leap) -> None:
    """Fetch the checkpoint, then have its root computed."""
    blob = result_of(tx.need(f"round/{leap.announcement}", Round)).checkpoint
    if leap.path is None:
        where = located(run, blob)
        tx.emit(Fetch(owner=KEY, name=f"leap:{blob.sha256}", blob=where, whose="the result", author=run.coordinator, spare=True))
    else:
        tx.emit(Compute(owner=KEY, name=f"inspect:{blob.sha256}", job=InspectJob(model=run.manifest.model, checkpoint=leap.path)))


def target(tx: Transaction, run: Run, replica: Replica) -> Round | None:
    """The newest closed round whose checkpoint may be taken and is worth it. A coordinator computes what it signs and pays for."""
    if tx.me.pubkey == run.coordinator or in_vain(replica, tx.now) >= TRIES:
        return None
    behind = missed(tx, run, replica)
    deltas = list(accumulate(sum(item.delta.size for item in result_of(round_).accepted) for round_ in behind))
    for count in range(len(behind), 0, -1):
        round_ = behind[count - 1]
        blob = result_of(round_).checkpoint
        if checkpoint_problem(run.manifest, blob) is not None:
            continue  # before its size says what is worth it
        if not worth(run, replica, blob, deltas[count - 1]):
            return None
        if barred(replica, blob.sha256, tx.now):
            continue
        if agreed(run, round_) and follows(run, replica, behind[:count]):
            return round_
    return None


def barred(replica: Replica, digest: Digest, now: UnixTime) -> bool:
    """Whether that checkpoint was tried in vain, lately or for good."""
    until = replica.passed.get(digest, UnixTime(0))
    return until is None or now < until


def in_vain(replica: Replica, now: UnixTime) -> int:
    """How many were."""
    return sum(barred(replica, digest, now) for digest in replica.passed)


def missed(tx: Transaction, run: Run, replica: Replica) -> list[Round]:
    """The closed rounds that the replica has not followed, in the order of the chain."""
    found: list[Round] = []
    head: EventId = replica.head
    while (announcement := run.announcements.get(head)) is not None and announcement in run.results:
        found.append(tx.need(f"round/{announcement}", Round))
        head = run.results[announcement]
    return found


def worth(run: Run, replica: Replica, blob: BlobRef, deltas: int) -> bool:
    """Whether the checkpoint is cheaper than the deltas up to it, in bytes, or the only way. Who has no state yet needs one checkpoint or another.

    The first one was as large: a coordinator that says less would have all leap who are a round behind.
    """
    return replica.state_id is None or replica.gone or deltas > max(blob.size, run.manifest.checkpoint.size)


def agreed(run: Run, round_: Round) -> bool:
    """Whether at least t of the round's validators computed the state and root of its result, and fewer than t anything else.

    So it is true as long as fewer than t of them lie, which is what the payer's money rests on too. Who was proved to cheat has no voice.
    """
    result, t = result_of(round_), run.manifest.threshold
    voices = [entry.pubkey for entry in round_.announcement.validators if entry.pubkey not in run.faulty]
    words = [round_.confirmations[key] for key in voices if key in round_.confirmations]
    agreeing = words.count((result.state_id, result.root))
    return agreeing >= t and len(words) - agreeing < t


def follows(run: Run, replica: Replica, rounds: list[Round]) -> bool:
    """Whether the id of every state follows from the one before it and the deltas that the result says it used. An outer step would notice it too."""
    state = replica.state_id or initial_state_id(run.manifest.root)
    for round_ in rounds:
        result = result_of(round_)
        if result.accepted:
            digests = [item.delta.sha256 for item in result.accepted]
            weights = [item.weight for item in result.accepted]
            state = next_state_id(state, digests, weights, run.manifest.outer, result.committed)
        if result.state_id != state:
            return False
    return True


def result_of(round_: Round) -> Result:
    """What closed the round."""
    assert round_.result is not None
    return round_.result[1]


def fetched(tx: Transaction, replica: Replica, path: str) -> None:
    """The file is here; nothing is known of it but its SHA-256."""
    assert replica.leap is not None
    tx.put(KEY, msgspec.structs.replace(replica, leap=msgspec.structs.replace(replica.leap, path=path)))


def inspected(tx: Transaction, run: Run, replica: Replica, found: InspectResult) -> None:
    """Land on the state if the file has its root, and enough validators still agree: others may have been heard on the way. It is not confirmed: that we computed it ourselves nobody could say."""
    leap = replica.leap
    assert leap is not None
    round_ = tx.need(f"round/{leap.announcement}", Round)
    assert round_.result is not None
    event_id, result = round_.result
    if found.root != result.root:
        failed(tx, replica, f"it is not the state that the validators computed: {found.error or found.root}", for_good=True)
        return
    if not agreed(run, round_):
        failed(tx, replica, "its validators disagree, as was heard since")
        return
    landed = Replica(
        head=event_id,
        state=advance("replica", replica.state, ReplicaState.READY),
        round=result.round,
        dataset=replica.dataset,
        checkpoint=leap.path,
        blob=result.checkpoint,
        state_id=result.state_id,
        root=result.root,
    )
    tx.put(KEY, landed)
    tx.note("info", "leaps_landed", f"joined at the checkpoint of round {result.round}, state {result.state_id[:8]}")


def failed(tx: Transaction, replica: Replica, reason: str, *, for_good: bool = False) -> None:
    """Back to where the replica stood, and on from round to round, or to another checkpoint; to this one after a while, or never.

    All that nobody served are barred that long from now: where each takes minutes, the newest would be due again before the last was tried.
    """
    leap = replica.leap
    assert leap is not None
    blob = result_of(tx.need(f"round/{leap.announcement}", Round)).checkpoint
    back = ReplicaState.BOOTING if replica.state_id is None else ReplicaState.READY
    again = UnixTime(tx.now + AGAIN_S)
    passed = {digest: until and again for digest, until in replica.passed.items()}
    passed = with_item(passed, blob.sha256, None if for_good else again)
    tx.put(KEY, msgspec.structs.replace(replica, state=advance("replica", replica.state, back), leap=None, passed=passed))
    tx.note("warning", "leaps_failed", f"checkpoint {blob.sha256[:8]} cannot be taken: {reason}")
