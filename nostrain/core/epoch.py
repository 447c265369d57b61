"""Epochs (design section 12, docs/adr/0030): so many rounds are escrowed and paid at once, for the mean of their scores.

The round that opens an epoch is its anchor: escrows, and the thermometers that release them, are bound to the anchor's announcement, and the
later rounds list the same validators and no new workers. Every round is still attested by itself: that decides whose work is used, and pays
nothing. With `epoch_rounds` = 1 both thermometers are one, and nothing here makes a difference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from hashlib import sha256

from nostrain.core.rows import Round, Run
from nostrain.core.scoring import agreed_levels, attested_levels, level_of, pinned, provenance_refusals, standings
from nostrain.core.timing import collect_by, epoch_ends
from nostrain.core.transaction import Transaction
from nostrain.protocol.digests import epoch_event_id, oracle_event_id
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Verdict
from nostrain.units import Digest, EventId, Ppm, Pubkey, UnixTime


def together(manifest: RunManifest) -> bool:
    """Whether several rounds are settled together."""
    return manifest.settlement.mode == "hold" and manifest.settlement.epoch_rounds > 1


def first_of(manifest: RunManifest, number: int) -> int:
    """Number of the round that opens the epoch of round `number`."""
    return number - (number - 1) % manifest.settlement.epoch_rounds if together(manifest) else number


def last_of(manifest: RunManifest, number: int) -> int:
    """Number of the round that ends the epoch of round `number`; the run's last epoch may be shorter."""
    return min(manifest.rounds, first_of(manifest, number) + manifest.settlement.epoch_rounds - 1) if together(manifest) else number


def opens(run: Run, round_: Round) -> bool:
    """Whether escrows are bound to this round."""
    return round_.announcement.round == first_of(run.manifest, round_.announcement.round)


def rounds_of(tx: Transaction, numbers: range) -> list[Round]:
    """Rows of the rounds with those numbers that are kept, oldest first. The chain has one round of each number."""
    rows = [tx.need(key, Round) for key in tx.keys("round/")]
    return sorted((row for row in rows if row.announcement.round in numbers), key=lambda row: row.announcement.round)


def rounds_in(tx: Transaction, manifest: RunManifest, anchor: Round) -> list[Round]:
    """Rows of the rounds of the epoch that `anchor` opened, as far as there are any."""
    first = anchor.announcement.round
    return rounds_of(tx, range(first, last_of(manifest, first) + 1))


def anchor_of(tx: Transaction, manifest: RunManifest, number: int) -> Round | None:
    """The round that opened the epoch of round `number`; None before that round, or when we never saw it."""
    first = first_of(manifest, number)
    return next(iter(rounds_of(tx, range(first, first + 1))), None)


def pay_event_id(manifest: RunManifest, anchor: EventId, payee: Pubkey) -> str:
    """DLC event id of the thermometer that releases the escrow of `payee`."""
    return epoch_event_id(anchor, payee) if together(manifest) else oracle_event_id(anchor, payee)


def quiet(run: Run, round_: Round, now: UnixTime) -> bool:
    """Whether nothing that changes the scores of a round is still to come: all who acknowledged have attested, or the time for it is over."""
    spoken = bool(round_.acknowledgements) and set(round_.acknowledgements) <= round_.attested
    return spoken or (round_.result is not None and round_.receipt is None) or now > collect_by(run, round_)


def over(tx: Transaction, run: Run, anchor: Round) -> bool:
    """Whether the epoch is to be attested: its last round is closed and quiet, or its time is over (it is paid for what was done then)."""
    if tx.now > epoch_ends(run, anchor):
        return True
    rows = rounds_in(tx, run.manifest, anchor)
    complete = rows[-1].announcement.round == last_of(run.manifest, anchor.announcement.round)
    return complete and all(row.result is not None and quiet(run, row, tx.now) for row in rows)


def agreed_verdicts(run: Run, round_: Round) -> tuple[tuple[EventId, Verdict], ...]:
    """The verdicts that the attestations of a round rest on: the set that most of them name, if t do; nothing otherwise.

    Of two sets named equally often the first in sorted order stands, so that everyone who saw the same events takes the same one.
    """
    named = Counter(attestation.verdicts for attestation in dict(round_.attestations.values()).values())
    if not named:
        return ()
    most = max(named.values())
    known = {event_id: (event_id, verdict) for event_id, verdict in round_.verdicts.values()}
    chosen = min(verdicts for verdicts, count in named.items() if count == most)
    if most < run.manifest.threshold or not set(chosen) <= known.keys():
        return ()
    return tuple(known[event_id] for event_id in chosen)


def scores_of(tx: Transaction, run: Run, round_: Round) -> dict[Pubkey, Ppm]:
    """What each worker of one round scored. Whoever is missing scored nothing."""
    verdicts = agreed_verdicts(run, round_)
    if not verdicts:
        return {}
    spec, number = run.manifest.scoring, round_.announcement.round
    history = provenance_refusals(rounds_of(tx, range(1, number)), round_, spec)
    told = standings([verdict for _, verdict in verdicts], pinned(round_), spec, history)
    return {worker: standing.score_ppm for worker, standing in told.items()}


def levels(tx: Transaction, run: Run, anchor: Round) -> dict[Pubkey, int]:
    """The level of each worker of the anchor: of ρ̄_i, the mean of its scores over the epoch's rounds, floored; a missing score is 0."""
    rounds = [scores_of(tx, run, row) for row in rounds_in(tx, run.manifest, anchor)]
    count = last_of(run.manifest, anchor.announcement.round) - anchor.announcement.round + 1
    return {
        worker: level_of(Ppm(sum(scores.get(worker, 0) for scores in rounds) // count), run.manifest.scoring)
        for worker in anchor.announcement.workers
    }


def paid_levels(run: Run, round_: Round) -> dict[Pubkey, int]:
    """For each payee the level that is paid by the escrows bound to this round, as far as it is attested; nothing in the middle of an epoch."""
    if not together(run.manifest):
        return attested_levels(round_, run.manifest.threshold)
    said = ((author, attestation.items) for author, attestation in round_.epoch_attestations.values())
    return agreed_levels(said, run.manifest.threshold)


def verdicts_digest(rounds: Sequence[tuple[tuple[EventId, Verdict], ...]]) -> Digest:
    """SHA-256 over the ids of all verdicts used, round by round: equal for validators that used the same."""
    return Digest(sha256(b"".join(bytes.fromhex(event_id) for verdicts in rounds for event_id, _ in verdicts)).hexdigest())
