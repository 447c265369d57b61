"""Epochs (design section 12, docs/adr/0030): so many rounds are escrowed and paid at once, for the mean of their scores.

The round that opens an epoch is its anchor: escrows, and the thermometers that release them, are bound to the anchor's announcement, and the
later rounds list the same validators and no new workers. Every round is still attested by itself: that decides whose work is used, and pays
nothing. With `epoch_rounds` = 1 both thermometers are one, and nothing here makes a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from nostrain.core.rounds.scoring import agreed_levels, attested_levels, level_of, pinned, provenance_refusals, standings
from nostrain.core.rows import Round, Run
from nostrain.core.timing import attested_from, collect_by
from nostrain.core.transaction import Transaction
from nostrain.protocol.digests import epoch_event_id, oracle_event_id
from nostrain.protocol.manifest import RunManifest, ScoringSpec
from nostrain.protocol.messages import Attestation
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
    if tx.now > attested_from(tx, run, anchor):
        return True
    rows = rounds_in(tx, run.manifest, anchor)
    complete = rows[-1].announcement.round == last_of(run.manifest, anchor.announcement.round)
    return complete and all(row.result is not None and quiet(run, row, tx.now) for row in rows)


def scores_of(tx: Transaction, run: Run, round_: Round) -> dict[Pubkey, Ppm]:
    """What each worker of one round scored: the t-th highest score of those that its attestations rest on. Whoever is missing scored nothing.

    Like the level that allows the use of its work (`agreed_levels`), it stands when t validators say so: no other one takes it away by naming
    other verdicts, or by showing each of us something else.
    """
    spec = run.manifest.scoring
    history = provenance_refusals(rounds_of(tx, range(1, round_.announcement.round)), round_, spec)
    said: dict[Pubkey, dict[Pubkey, Ppm]] = {}
    for author, attestation in round_.attestations.values():
        for worker, score in scores_by(round_, attestation, spec, history).items():
            of_worker = said.setdefault(worker, {})
            of_worker[author] = max(of_worker.get(author, score), score)
    ranked = {worker: sorted(scores.values(), reverse=True) for worker, scores in said.items()}
    return {worker: scores[run.manifest.threshold - 1] for worker, scores in ranked.items() if len(scores) >= run.manifest.threshold}


def scores_by(round_: Round, attestation: Attestation, spec: ScoringSpec, history: Mapping[Pubkey, str]) -> dict[Pubkey, Ppm]:
    """The scores that one attestation rests on: they follow from the verdicts that it names.

    Of verdicts that we do not have we know what the attested level says, and no more: the score reached its threshold.
    """
    known = dict(round_.verdicts.values())
    if attestation.verdicts and known.keys() >= set(attestation.verdicts):
        told = standings([known[event_id] for event_id in attestation.verdicts], pinned(round_), spec, history)
        return {worker: standing.score_ppm for worker, standing in told.items()}
    return {item.payee: spec.levels_ppm[sum(item.digits) - 1] if any(item.digits) else Ppm(0) for item in attestation.items}


def levels(tx: Transaction, run: Run, anchor: Round) -> dict[Pubkey, int]:
    """The level of each worker of the anchor: that of the mean of its scores, times the part of the epoch's rounds that it was scored in.

    So nobody can have the first rounds of an epoch for nothing, by closing the others empty or leaving someone out of them.
    """
    rounds = [scores_of(tx, run, row) for row in rounds_in(tx, run.manifest, anchor)]
    count = last_of(run.manifest, anchor.announcement.round) - anchor.announcement.round + 1
    own = {worker: [scores[worker] for scores in rounds if worker in scores] for worker in anchor.announcement.workers}
    return {worker: level_of_epoch(scores, count, run.manifest.scoring) for worker, scores in own.items()}


def level_of_epoch(scores: Sequence[Ppm], count: int, spec: ScoringSpec) -> int:
    """⌊level(⌊mean(scores)⌋) · n / count + ½⌋ for n scores in an epoch of `count` rounds."""
    if not scores:
        return 0
    level = level_of(Ppm(sum(scores) // len(scores)), spec)
    return (2 * level * len(scores) + count) // (2 * count)


def paid_levels(run: Run, round_: Round) -> dict[Pubkey, int]:
    """For each payee the level that is paid by the escrows bound to this round, as far as it is attested; nothing in the middle of an epoch."""
    if not together(run.manifest):
        return attested_levels(round_, run.manifest.threshold)
    said = ((author, attestation.items) for author, attestation in round_.epoch_attestations.values())
    return agreed_levels(said, run.manifest.threshold)


def verdicts_digest(rounds: Iterable[Round]) -> Digest:
    """SHA-256 over the ids of all verdicts that the attestations of each round name: equal for validators that saw the same attestations."""
    named = [sorted({event_id for _, said in row.attestations.values() for event_id in said.verdicts}) for row in rounds]
    return Digest(sha256(b"".join(bytes.fromhex(event_id) for verdicts in named for event_id in verdicts)).hexdigest())
