"""When things are due. Everything follows from the announcement's deadlines, which follow from its own date and the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from math import isqrt
from typing import Final

import msgspec

from nostrain.core.escrow.rows import Dues
from nostrain.core.fraud.dispute_rows import Suspicion
from nostrain.core.rows import NodeState, Replica, Round, Run, Started, WorkerMemory
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.opening_rows import Opening, Openings
from nostrain.core.treasury.withdrawal_rows import Withdrawal
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Deadlines
from nostrain.units import UnixTime

RELEASE_WAIT_S: Final = 45
"""How much longer than maturity + grace a payee waits for attestations that are on their way (design section 6 allows 60 s)."""
MEASURE_S: Final = 10
"""So long does a worker's first enrolment wait for its speed; when that is known later, it is said later."""
CATCH_UP_S: Final = 45
"""After a start, so long may it take until the relays have told what we missed: nothing is given up before."""
YOUNG_S: Final = 15
"""A run whose manifest is older has a history."""
HEAR_S: Final = 10
"""Whoever joins such a run first hears for so long what relays have of it: it may not need the first checkpoint (docs/adr/0061)."""
BLOCK_S: Final = 600
DAY_S: Final = 86_400
SAFETY_BLOCKS: Final = 24
"""From so many blocks before an HTLC's expiry its payee cancels and never settles (design section 6, Deadlines)."""


def deadlines(now: UnixTime, manifest: RunManifest) -> Deadlines:
    """The latest end of every phase of a round that is announced now: the only deadlines that it may have."""
    timing = manifest.timing
    commit_by = now + timing.commit_s
    acknowledge_by = commit_by + timing.acknowledge_s
    reveal_by = acknowledge_by + timing.reveal_s
    hash_by = reveal_by + timing.verdict_s
    verdict_by = hash_by + timing.grace_s
    return Deadlines(
        commit_by=UnixTime(commit_by),
        acknowledge_by=UnixTime(acknowledge_by),
        reveal_by=UnixTime(reveal_by),
        hash_by=UnixTime(hash_by),
        verdict_by=UnixTime(verdict_by),
        attest_by=UnixTime(verdict_by + timing.attest_s),
    )


def oracles_by(run: Run, round_: Round) -> int:
    """Until when a payer waits for the thermometers of every oracle; then t of them have to do."""
    return round_.announcement.deadlines.commit_by - run.manifest.timing.commit_s * 2 // 3


def fetch_by(round_: Round) -> int:
    """Until when a validator waits for the blobs that were revealed: a third of the time for verdicts. One that is not to be had must not cost the others theirs."""
    limits = round_.announcement.deadlines
    return limits.reveal_by + (limits.hash_by - limits.reveal_by) // 3


def collect_by(run: Run, round_: Round) -> int:
    """Until when a coordinator waits for attestations: as long as those may still release payments."""
    return round_.announcement.deadlines.attest_by + run.manifest.timing.grace_s


def longest_round(manifest: RunManifest) -> int:
    """Seconds from one announcement to the next if every phase takes all its time: the deadlines, and what aggregation and upload are given."""
    timing = manifest.timing
    phases = timing.commit_s + timing.acknowledge_s + timing.reveal_s + timing.verdict_s + timing.attest_s
    return phases + 2 * timing.grace_s + 2 * timing.reveal_s


def held_s(manifest: RunManifest) -> int:
    """Seconds that an HTLC may have to be held: from the announcement that opens an epoch until its attestations are due."""
    timing, rounds = manifest.timing, manifest.settlement.epoch_rounds
    if rounds == 1:
        return longest_round(manifest) - 2 * timing.reveal_s
    return rounds * longest_round(manifest) + timing.attest_s + timing.grace_s


def epoch_ends(run: Run, anchor: Round) -> UnixTime:
    """Maturity of the thermometers that release the escrows bound to `anchor`: the end of the round, or the fixed end of an epoch of several.

    A coordinator that is slower than its manifest gets fewer rounds for the same locks, not longer locks.
    """
    settlement, limits = run.manifest.settlement, anchor.announcement.deadlines
    if settlement.epoch_rounds == 1:
        return limits.attest_by
    opened = limits.commit_by - run.manifest.timing.commit_s
    return UnixTime(opened + settlement.epoch_rounds * longest_round(run.manifest))


def attested_from(tx: Transaction, run: Run, anchor: Round) -> int:
    """When an epoch is attested at the latest, whatever was heard of it: at its end. After a start up to half the time to attest is left for what we missed."""
    started, ends = tx.get("started", Started), epoch_ends(run, anchor)
    return max(ends, min(started.at + CATCH_UP_S, ends + run.manifest.timing.attest_s // 2)) if started is not None else ends


def settled_by(run: Run, anchor: Round) -> int:
    """Until when attestations may release the escrows bound to `anchor`."""
    timing, alone = run.manifest.timing, run.manifest.settlement.epoch_rounds == 1
    return epoch_ends(run, anchor) + timing.grace_s + (0 if alone else timing.attest_s)


def aggregate_by(run: Run, round_: Round) -> int:
    """Until when a coordinator waits for deltas that validators could fetch."""
    return collect_by(run, round_) + run.manifest.timing.reveal_s


def acknowledged_by(round_: Round) -> int:
    """Until when acknowledgements may still arrive that were made in time."""
    return round_.announcement.deadlines.acknowledge_by + RELEASE_WAIT_S


def release_by(tx: Transaction, run: Run, round_: Round) -> int:
    """Until when a payee waits for attestations that release the escrow bound to `round_`."""
    started = tx.get("started", Started)
    return max(settled_by(run, round_) + RELEASE_WAIT_S, started.at + CATCH_UP_S if started is not None else 0)


def not_ahead(at: UnixTime, now: UnixTime, most: int = 0) -> UnixTime:
    """A moment that was written down as at most `most` seconds from then: one that is later was read from a clock that was ahead, and is that far from now."""
    return UnixTime(min(at, now + most))


def blocks_in(seconds: int) -> int:
    """Blocks that are found in so many seconds, with three standard deviations of a Poisson process to spare."""
    mean = max(0, -(-seconds // BLOCK_S))
    return mean + 3 * (isqrt(mean) + 1)


def moments(state: NodeState) -> Iterator[int]:
    """Every moment at which time alone may change something."""
    run, started = state.rows.get("run"), state.rows.get("started")
    yield from opening_moments(state)
    if isinstance(started, Started):
        yield started.at + CATCH_UP_S + 1
    if not isinstance(run, Run):
        return
    replica = state.rows.get("replica")
    if isinstance(replica, Replica):
        yield replica.hear_until
        yield from (at for at in replica.passed.values() if at is not None)
    memory = state.rows.get("worker")
    if isinstance(memory, WorkerMemory) and memory.measuring is not None:
        yield memory.measuring + MEASURE_S + 1
    for key in state.groups.get("suspicion", ()):
        suspicion = state.rows[key]
        assert isinstance(suspicion, Suspicion)
        yield suspicion.at
    yield from (row.retry_at for key in state.groups.get("dues", ()) if isinstance(row := state.rows[key], Dues))
    for key in state.groups.get("round", ()):
        round_ = state.rows[key]
        assert isinstance(round_, Round)
        collected = collect_by(run, round_)
        due = (
            *msgspec.structs.astuple(round_.announcement.deadlines),
            oracles_by(run, round_),
            fetch_by(round_),
            acknowledged_by(round_),
            collected,
        )
        ends, last = epoch_ends(run, round_), settled_by(run, round_)
        settled = (ends, ends + run.manifest.timing.attest_s // 2, last, last + RELEASE_WAIT_S)
        yield from (at + 1 for at in (*due, aggregate_by(run, round_), *settled))
        if round_.receipt is None and round_.commitments:
            yield max(created_at for _, created_at, _ in round_.commitments.values())


def opening_moments(state: NodeState) -> Iterator[int]:
    """When the node may do with its money what it may not yet: what failed again, and whatever a day's limit is in the way of."""
    for key in state.groups.get("opening", ()):
        row = state.rows[key]
        if isinstance(row, Opening):
            yield from (row.retry_at, row.at + DAY_S)
    withdrawal = state.rows.get("withdrawal")
    if isinstance(withdrawal, Withdrawal):
        yield from (withdrawal.retry_at, withdrawal.at + DAY_S)
    openings = state.rows.get("openings")
    if isinstance(openings, Openings):
        yield from (at + DAY_S for at, _ in openings.recent)
