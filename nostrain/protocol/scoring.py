"""From verdicts to levels, in integers (design section 12). Same verdicts, same levels: for every validator and every auditor.

ρ_i = median_j g_ij / max(median_i median_j g_ij, floor), clamped to [−1, 1.5]; level = number of thresholds q_k that ρ_i reaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from nostrain.protocol.manifest import ScoringSpec
from nostrain.protocol.messages import Score, Verdict
from nostrain.units import PPM, Ppm, Pubkey

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
        level = level_of(score, spec)
        result[worker] = Standing(score, level, None if level else f"score {score} ppm is below the first level")
    return result


def level_of(score: Ppm, spec: ScoringSpec) -> int:
    """#{k : score ≥ q_k}."""
    return sum(score >= threshold for threshold in spec.levels_ppm)


def thermometer(level: int, levels: int) -> tuple[int, ...]:
    """The digits that say `level`: ones up to it, zeros after."""
    return (1,) * level + (0,) * (levels - level)
