"""From verdicts to levels, in integers (design section 12). Same verdicts, same levels: for every validator and every auditor.

ρ_i = median_j g_ij / max(median_i median_j g_ij, floor), clamped to [−1, 1.5]; level = number of thresholds q_k that ρ_i reaches.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from math import isqrt
from typing import Final

import msgspec

from nostrain.core.rows import Round
from nostrain.protocol.manifest import ScoringSpec
from nostrain.protocol.messages import Score, Verdict
from nostrain.units import PPM, EventId, Ppm, Pubkey

SAME_PPM: Final = Ppm(900_000)
"""Of two deltas of one round that share more of their indices than this, at least one is a copy, in whatever round: nobody's training is the
same as another's on other data. Honest deltas of the first two rounds were measured to share a quarter."""
MAX_REASON: Final = 120
"""Characters of a reason that is passed on: part of it may be someone else's words."""


class Standing(msgspec.Struct, frozen=True):
    """What a set of verdicts says of one worker. `reason` is set when the level is 0."""

    score_ppm: Ppm
    level: int
    reason: str | None


def median(values: Sequence[int]) -> int:
    """Lower median: always one of the values, so that integers stay exact."""
    return sorted(values)[(len(values) - 1) // 2]


def pinned(round_: Round) -> tuple[Pubkey, ...]:
    """Authors of the commitments that the receipt pins, sorted by key."""
    if round_.receipt is None:
        return ()
    return tuple(sorted(round_.commitments[event_id][0] for event_id in round_.receipt[1].commitments))


def refusal(scores: Sequence[Score], spec: ScoringSpec, round_number: int) -> str | None:
    """Why a majority of validators would not take this delta, or None. The first of their reasons in sorted order stands."""
    majority = len(scores) // 2 + 1
    errors = sorted(score.error for score in scores if score.error is not None)
    if len(errors) >= majority:
        return errors[0]
    if sum(score.overlap_ppm > spec.max_overlap_ppm for score in scores) >= majority:
        return "its indices are those of an earlier delta"
    most = spec.max_overlap_ppm if round_number >= spec.plausibility_from_round else max(spec.max_overlap_ppm, SAME_PPM)
    if sum(score.overlap_round_ppm > most for score in scores) >= majority:
        return "its indices are those of another delta of this round"
    return None


def standings(
    verdicts: Sequence[Verdict], workers: Sequence[Pubkey], spec: ScoringSpec, history: Mapping[Pubkey, str]
) -> dict[Pubkey, Standing]:
    """Score and level of each of `workers` from one set of verdicts. `history` refuses workers for what earlier rounds showed."""
    by_worker = {worker: [score for verdict in verdicts for score in verdict.scores if score.worker == worker] for worker in workers}
    refused: dict[Pubkey, str] = {}
    gains: dict[Pubkey, int] = {}
    for worker, scores in by_worker.items():
        reason = "no verdict" if not scores else refusal(scores, spec, verdicts[0].round) or history.get(worker)
        if reason is not None:
            refused[worker] = reason
        else:
            gains[worker] = median([score.gain for score in scores if score.error is None])
    normalizer = max(median(list(gains.values())), spec.floor_nanonats) if gains else spec.floor_nanonats
    result: dict[Pubkey, Standing] = {}
    for worker in workers:
        if worker in refused:
            result[worker] = Standing(Ppm(0), 0, refused[worker])
            continue
        score = Ppm(max(-PPM, min(PPM * 3 // 2, gains[worker] * PPM // normalizer)))
        level = sum(score >= threshold for threshold in spec.levels_ppm)
        result[worker] = Standing(score, level, None if level else f"score {score} ppm is below the first level")
    return result


def thermometer(level: int, levels: int) -> tuple[int, ...]:
    """The digits that say `level`: ones up to it, zeros after."""
    return (1,) * level + (0,) * (levels - level)


def attested_levels(round_: Round, threshold: int) -> dict[Pubkey, int]:
    """For each payee the highest level that at least `threshold` validators attested."""
    votes: dict[Pubkey, dict[Pubkey, int]] = {}
    for author, attestation in round_.attestations.values():
        for item in attestation.items:
            of_payee = votes.setdefault(item.payee, {})
            of_payee[author] = max(of_payee.get(author, 0), sum(item.digits))
    ranked = {payee: sorted(levels.values(), reverse=True) for payee, levels in votes.items()}
    return {payee: levels[threshold - 1] if len(levels) >= threshold else 0 for payee, levels in ranked.items()}


def attesting(round_: Round, payee: Pubkey, level: int, cited: Container[EventId]) -> frozenset[Pubkey]:
    """The validators whose attestations, among those `cited`, say that `payee` reached `level`."""
    return frozenset(
        author
        for event_id, (author, attestation) in round_.attestations.items()
        if event_id in cited and any(item.payee == payee and sum(item.digits) >= level for item in attestation.items)
    )


def provenance_milli_z(scores: Sequence[Score]) -> int | None:
    """Stouffer's z, in thousandths, over measurements of one worker: Σ D/se ÷ √n, in integers. None when nothing is usable."""
    usable = [score.provenance * 1000 // score.provenance_se for score in scores if score.error is None and score.provenance_se > 0]
    return sum(usable) * 1000 // isqrt(len(usable) * 1_000_000) if usable else None


def provenance_refusals(before: Sequence[Round], round_: Round, spec: ScoringSpec) -> dict[Pubkey, str]:
    """Workers whose deltas of the last four rounds do not show that they trained on their own data (design section 12)."""
    number = round_.announcement.round
    if spec.min_provenance_milli_z <= 0 or number < spec.plausibility_from_round:
        return {}
    rounds = [row for row in before if row.announcement.round > number - 4] + [round_]
    refused = {}
    for worker in pinned(round_):
        scores = [score for row in rounds for _, verdict in row.verdicts.values() for score in verdict.scores if score.worker == worker]
        z = provenance_milli_z(scores)
        if z is not None and z < spec.min_provenance_milli_z:
            refused[worker] = f"its deltas do not fit the data that it was assigned (z = {z / 1000:.1f})"
    return refused
