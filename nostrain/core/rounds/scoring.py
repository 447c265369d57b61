"""Levels as a round's own messages give them: who is pinned, what is attested, what earlier rounds refuse (`protocol.scoring`, design section 12)."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from math import isqrt
from typing import Final

from nostrain.core.rows import Round
from nostrain.protocol.manifest import ScoringSpec
from nostrain.protocol.messages import AttestationItem, Score
from nostrain.protocol.scoring import MAX_REASON, SAME_PPM, Standing, level_of, median, refusal, standings, thermometer
from nostrain.units import EventId, Pubkey

__all__ = [
    "MAX_REASON",
    "PROVENANCE_ROUNDS",
    "SAME_PPM",
    "Standing",
    "agreed_levels",
    "attested_levels",
    "attesting",
    "level_of",
    "median",
    "pinned",
    "provenance_milli_z",
    "provenance_refusals",
    "refusal",
    "standings",
    "thermometer",
]

PROVENANCE_ROUNDS: Final = 4
"""Rounds whose measurements together show whether a worker trained on its own data."""


def pinned(round_: Round) -> tuple[Pubkey, ...]:
    """Authors of the commitments that the receipt pins, sorted by key."""
    if round_.receipt is None:
        return ()
    return tuple(sorted(round_.commitments[event_id][0] for event_id in round_.receipt[1].commitments))


def attested_levels(round_: Round, threshold: int) -> dict[Pubkey, int]:
    """For each payee the highest level that at least `threshold` validators attested for its work in the round."""
    return agreed_levels(((author, attestation.items) for author, attestation in round_.attestations.values()), threshold)


def agreed_levels(attested: Iterable[tuple[Pubkey, Sequence[AttestationItem]]], threshold: int) -> dict[Pubkey, int]:
    """For each payee the highest level that at least `threshold` authors of attestations say."""
    votes: dict[Pubkey, dict[Pubkey, int]] = {}
    for author, items in attested:
        for item in items:
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
    rounds = [row for row in before if row.announcement.round > number - PROVENANCE_ROUNDS] + [round_]
    refused = {}
    for worker in pinned(round_):
        scores = [score for row in rounds for _, verdict in row.verdicts.values() for score in verdict.scores if score.worker == worker]
        z = provenance_milli_z(scores)
        if z is not None and z < spec.min_provenance_milli_z:
            refused[worker] = f"its deltas do not fit the data that it was assigned (z = {z / 1000:.1f})"
    return refused
