"""How a round's fees are split: a pure function of signed events, so that everybody computes the same (design section 7, docs/adr/0024).

The pool of a round is pinned commitments × `fee_msat` × `validator_share_ppm` / 10⁶. It is divided equally, rounded down, among the validators
whose verdicts counted in the result: those whose attestation the result cites, and whose verdict is named by at least t of the validators whose
attestations it cites. What is not divided stays with the coordinator: the rounding, and the whole pool of a round in which nobody's counted.
"""

from __future__ import annotations

from nostrain.core.rounds.scoring import pinned
from nostrain.core.rows import Round, Run
from nostrain.protocol.manifest import RunManifest
from nostrain.units import PPM, EventId, Msat, Pubkey


def shared(manifest: RunManifest) -> bool:
    """Whether validators have a share of anything in this run."""
    settlement = manifest.settlement
    return settlement.mode == "hold" and settlement.fee_msat > 0 and settlement.validator_share_ppm > 0


def named(run: Run, round_: Round) -> tuple[frozenset[Pubkey], frozenset[EventId]]:
    """The authors of the attestations that the round's result cites, and the verdicts that t of them name; nothing before there is a result."""
    cited = set(round_.result[1].attestations) if round_.result is not None else set()
    by: dict[EventId, set[Pubkey]] = {}
    attested: set[Pubkey] = set()
    for event_id, (author, attestation) in round_.attestations.items():
        if event_id in cited:
            attested.add(author)
            for verdict in attestation.verdicts:
                by.setdefault(verdict, set()).add(author)
    return frozenset(attested), frozenset(verdict for verdict, authors in by.items() if len(authors) >= run.manifest.threshold)


def counted(run: Run, round_: Round) -> tuple[Pubkey, ...]:
    """The validators whose verdicts counted in the round's result, sorted. What was not heard yet counts for nothing: see `complete`."""
    attested, verdicts = named(run, round_)
    return tuple(sorted(author for author, (verdict, _) in round_.verdicts.items() if author in attested and verdict in verdicts))


def complete(run: Run, round_: Round) -> bool:
    """Whether everything that `counted` depends on has been heard: it will not change any more."""
    if round_.result is None:
        return False
    known = {verdict for verdict, _ in round_.verdicts.values()}
    return round_.attestations.keys() >= set(round_.result[1].attestations) and known >= named(run, round_)[1]


def pool(run: Run, round_: Round) -> Msat:
    """What the validators of a round have to share."""
    settlement = run.manifest.settlement
    if not shared(run.manifest):
        return Msat(0)
    return Msat(len(pinned(round_)) * settlement.fee_msat * settlement.validator_share_ppm // PPM)


def shares(run: Run, round_: Round) -> dict[Pubkey, Msat]:
    """What each validator has earned in the round."""
    validators = counted(run, round_)
    each = pool(run, round_) // len(validators) if validators else 0
    return dict.fromkeys(validators, Msat(each))
