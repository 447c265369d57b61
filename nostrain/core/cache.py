"""The shards that a worker or validator keeps: as many bytes as its operator allows, the least recently used go first, never one in use.

What is given up is fetched again when a round needs it. A node that serves the run's blobs has no bound (`Identity.cache_bytes` 0).
"""

from __future__ import annotations

from nostrain.core.ahead_rows import Ahead
from nostrain.core.effects import Evict, Fetch
from nostrain.core.rows import Cache, Duty, Outstanding, Replica, Round, Submission
from nostrain.core.tables import AheadState, DutyState, SubmissionState
from nostrain.core.transaction import Transaction
from nostrain.protocol.dataset import DatasetManifest
from nostrain.units import Digest

KEY = "cache"


def used(tx: Transaction, dataset: DatasetManifest, digest: Digest) -> None:
    """A shard is here, and was just needed."""
    size = next((shard.size for shard in dataset.shards if shard.sha256 == digest), None)
    if not tx.me.cache_bytes or size is None:
        return
    row = tx.get(KEY, Cache) or Cache()
    others = tuple(held for held in row.held if held[0] != digest)
    tx.put(KEY, Cache((*others, (digest, size))))


def leaving(tx: Transaction, digest: Digest) -> bool:
    """Whether the shard is being removed: it is fetched again once it is gone, so that the two do not meet."""
    return tx.outstanding(f"{KEY}#{digest}") is not None


def decide(tx: Transaction) -> None:
    """Give up what there is no room for, the oldest first."""
    limit, row = tx.me.cache_bytes, tx.get(KEY, Cache)
    if row is None or not limit:
        return
    excess = sum(size for _, size in row.held) - limit
    if excess <= 0:
        return
    needed, kept = in_use(tx), []
    for digest, size in row.held:
        if excess > 0 and digest not in needed:
            excess -= size
            tx.emit(Evict(owner=KEY, name=digest, blob=digest))
            tx.note("info", "shards_evicted", f"shard {digest[:8]} makes room for others")
        else:
            kept.append((digest, size))
    tx.put(KEY, Cache(tuple(kept)))


def in_use(tx: Transaction) -> set[Digest]:
    """Blobs that a job, a round that is kept, or a fetch names: someone may reveal a shard as a delta, or list one as validation shard too."""
    named: set[Digest] = set()
    replica = tx.get("replica", Replica)
    if replica is not None:
        named |= set(replica.paths)
        named |= set() if replica.dataset is None else {replica.dataset.validation.sha256}
    for key in tx.keys("work/"):
        mine = tx.need(key, Submission)
        if mine.shard is not None and mine.state in (SubmissionState.PREPARING, SubmissionState.TRAINING):
            named.add(mine.shard)
    for key in tx.keys("ahead/"):
        ahead = tx.need(key, Ahead)
        if ahead.state in (AheadState.PREPARING, AheadState.TRAINING):
            named.add(ahead.shard)
    for key in tx.keys("duty/"):
        duty = tx.need(key, Duty)
        if duty.state in (DutyState.ANNOUNCED, DutyState.ACKNOWLEDGED, DutyState.EVALUATING):
            named |= set(duty.paths)
    for key in tx.keys("round/"):
        named |= {reveal.blob.sha256 for reveal in tx.need(key, Round).reveals.values()}
    for key in tx.keys("effect/"):
        effect = tx.need(key, Outstanding).effect
        if isinstance(effect, Fetch):
            named.add(effect.blob.sha256)
    return named
