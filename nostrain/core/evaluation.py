"""A validator's evaluation of one round: which files it needs, the job for the engine, the verdict that follows from its result."""

from __future__ import annotations

from hashlib import sha256

import msgspec

from nostrain.core.cache import leaving
from nostrain.core.effects import Compute, Fetch
from nostrain.core.rounds.assigned import assigned, assigned_shard, taken_shards
from nostrain.core.rounds.scoring import MAX_REASON, pinned
from nostrain.core.rows import Duty, Replica, Round, Run
from nostrain.core.run import located
from nostrain.core.tables import DutyState, ReplicaState, advance
from nostrain.core.timing import fetch_by
from nostrain.core.transaction import Transaction
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.digests import evaluation_seed
from nostrain.protocol.jobs import Candidate, EvaluateJob, EvaluateResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Score, Verdict
from nostrain.units import Digest, Pubkey

UNASSIGNED_SHARDS = 2
"""Shards that one validator draws its unassigned windows from in one round: few, so that little has to be fetched."""


def workers_of(round_: Round, digest: Digest) -> list[Pubkey]:
    """Who revealed the delta with that digest; more than one when it was copied."""
    return [worker for worker, reveal in round_.reveals.items() if reveal.blob.sha256 == digest]


def prepare(tx: Transaction, run: Run, round_: Round, duty: Duty) -> bool:
    """Fetch what is missing; once all is here, evaluate. True when there is nothing to compute: nothing was revealed, or is to be had.

    The state to measure on is that of the announcement: a replica that has not caught up with it, or has left it, measures nothing.
    """
    replica = tx.get("replica", Replica)
    if replica is None or replica.dataset is None or replica.state is not ReplicaState.READY or replica.confirming is not None:
        return False
    if replica.state_id != round_.announcement.state_id:
        return False
    revealed = [worker for worker in pinned(round_) if worker in round_.reveals and worker not in duty.bad]
    fetch(tx, run, round_, duty, replica.dataset, revealed)
    missing = {round_.reveals[worker].blob.sha256 for worker in revealed} - set(duty.paths)
    if missing and tx.now > fetch_by(round_):
        revealed = [worker for worker in revealed if round_.reveals[worker].blob.sha256 not in missing]
        duty = give_up(tx, round_, duty, missing)
    elif missing or not all_shown(tx, round_):
        return False
    if not revealed:
        return True
    if all(shard.sha256 in duty.paths for shard in shards_needed(round_, duty, replica.dataset, revealed)):
        tx.put(f"duty/{round_.id}", msgspec.structs.replace(duty, state=advance("duty", duty.state, DutyState.EVALUATING)))
        tx.emit(Compute(owner=f"duty/{round_.id}", name="evaluate", job=evaluate_job(tx, run, round_, duty, revealed)))
    return False


def all_shown(tx: Transaction, round_: Round) -> bool:
    """Whether nothing more is to be waited for: every pinned delta was revealed, or the time for it is over."""
    return set(pinned(round_)) <= set(round_.reveals) or tx.now > round_.announcement.deadlines.reveal_by


def fetch(tx: Transaction, run: Run, round_: Round, duty: Duty, dataset: DatasetManifest, revealed: list[Pubkey]) -> None:
    """Ask for the deltas as they are revealed, and for the shards to measure them on."""
    key = f"duty/{round_.id}"
    for worker in revealed:
        blob = round_.reveals[worker].blob
        if blob.sha256 not in duty.paths and not leaving(tx, blob.sha256):
            tx.emit(Fetch(owner=key, name=f"delta:{blob.sha256}", blob=located(run, blob), whose=worker[:8], author=worker))
    for shard in shards_needed(round_, duty, dataset, revealed) if revealed else ():
        if shard.sha256 not in duty.paths and not leaving(tx, shard.sha256):
            tx.emit(
                Fetch(
                    owner=key,
                    name=f"shard:{shard.sha256}",
                    blob=located(run, shard),
                    whose="the dataset",
                    author=run.coordinator,
                    must=True,
                )
            )


def give_up(tx: Transaction, round_: Round, duty: Duty, missing: set[Digest]) -> Duty:
    """Deltas that were promised and are not to be had: whoever promised them has none."""
    bad = dict(duty.bad)
    for digest in sorted(missing):
        tx.withdraw(f"duty/{round_.id}", f"delta:{digest}")
        for worker in workers_of(round_, digest):
            bad[worker] = "its blob was not to be had in time"
            tx.note("warning", "blobs_refused", f"delta of {worker[:8]}: {bad[worker]}")
    duty = msgspec.structs.replace(duty, bad=bad)
    tx.put(f"duty/{round_.id}", duty)
    return duty


def shards_needed(round_: Round, duty: Duty, dataset: DatasetManifest, revealed: list[Pubkey]) -> list[BlobRef]:
    """The shards that the revealed deltas were trained on, and the unassigned ones."""
    assigned = [assigned_shard(round_, dataset, worker) for worker in revealed]
    return assigned + [shard for shard in unassigned_shards(round_, duty, dataset) if shard not in assigned]


def unassigned_shards(round_: Round, duty: Duty, dataset: DatasetManifest) -> list[BlobRef]:
    """Shards that nobody was assigned, in an order drawn from our seed; any shards when all are assigned."""
    count, taken = len(dataset.shards), taken_shards(round_, dataset)
    free = [index for index in range(count) if index not in taken] or list(range(count))
    seed = bytes.fromhex(seed_of(round_, duty))
    order = sorted(free, key=lambda index: sha256(seed + index.to_bytes(4, "big")).digest())
    return [dataset.shards[index] for index in order[:UNASSIGNED_SHARDS]]


def seed_of(round_: Round, duty: Duty) -> Digest:
    """Our evaluation seed for this round."""
    assert round_.receipt is not None and duty.link is not None  # noqa: PT018 - an acknowledged duty has both
    return evaluation_seed(round_.receipt[0], duty.link)


def evaluate_job(tx: Transaction, run: Run, round_: Round, duty: Duty, revealed: list[Pubkey]) -> EvaluateJob:
    """Score the revealed deltas on our state with our seed; overlaps against the deltas of earlier rounds that we still hold."""
    replica = tx.need("replica", Replica)
    assert replica.dataset is not None and replica.checkpoint is not None  # noqa: PT018 - prepare asked for a ready replica
    candidates = tuple(
        Candidate(
            worker=worker,
            delta=duty.paths[round_.reveals[worker].blob.sha256],
            shard=duty.paths[assigned_shard(round_, replica.dataset, worker).sha256],
            window_seed=assigned(round_, replica.dataset, worker).seed,
        )
        for worker in revealed
    )
    return EvaluateJob(
        model=run.manifest.model,
        training=run.manifest.training,
        codec=run.manifest.codec,
        outer=run.manifest.outer,
        scoring=run.manifest.scoring,
        checkpoint=replica.checkpoint,
        candidates=candidates,
        committed=len(pinned(round_)),
        unassigned=tuple(duty.paths[shard.sha256] for shard in unassigned_shards(round_, duty, replica.dataset)),
        seed=seed_of(round_, duty),
        earlier=earlier_deltas(tx, round_),
        dtype=replica.dataset.dtype,
    )


def earlier_deltas(tx: Transaction, round_: Round) -> tuple[tuple[Digest, str], ...]:
    """Deltas of earlier rounds that this validator evaluated and still holds."""
    found: dict[Digest, str] = {}
    for key in tx.keys("duty/"):
        duty = tx.need(key, Duty)
        before = tx.get(f"round/{duty.announcement}", Round)
        if before is not None and before.id != round_.id:
            found |= {
                reveal.blob.sha256: duty.paths[reveal.blob.sha256] for reveal in before.reveals.values() if reveal.blob.sha256 in duty.paths
            }
    return tuple(sorted(found.items()))


def plain(reason: str) -> str:
    """Someone's words, fit to be published: printable, on one line, not too long."""
    return "".join(letter if letter.isprintable() else " " for letter in reason)[:MAX_REASON]


def verdict(run: Run, round_: Round, duty: Duty, result: EvaluateResult | None) -> Verdict:
    """One score for each pinned worker: the engine's, or why there is none."""
    measured = {score.worker: score for score in result.scores} if result is not None else {}
    scores = []
    for worker in pinned(round_):
        if worker in measured:
            score = msgspec.convert(msgspec.structs.asdict(measured[worker]), Score)
            scores.append(msgspec.structs.replace(score, error=plain(score.error) if score.error is not None else None))
        else:
            scores.append(Score(worker=worker, error=duty.bad.get(worker, "it was not revealed in time")))
    assert round_.receipt is not None and duty.salt is not None  # noqa: PT018 - an acknowledged duty has both
    return Verdict(
        run=run.id,
        announcement=round_.id,
        round=round_.announcement.round,
        receipt=round_.receipt[0],
        salt=duty.salt,
        state_id=round_.announcement.state_id,
        losses_before=result.losses_before if result is not None else (),
        scores=tuple(scores),
    )
