"""Results that nobody may use, and attestations that do not follow from the verdicts that they name (decision 4, design section 12).

Both are judged by signed events alone, without blobs, and only by what is there: a piece that is missing never makes anyone guilty. What is
counted in favour of the accused is counted generously: that an attestation answers no announced thermometer, say, is for others to notice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nostrain.audit.evidence import Evidence, Finding, Said, events_of
from nostrain.protocol.digests import next_state_id
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Accepted, Announcement, Attestation, Receipt, Result, Verdict
from nostrain.protocol.scoring import standings, thermometer
from nostrain.units import EventId, Pubkey

_Fault = tuple[str, tuple[Said, ...]]
"""What is wrong, and the events that show it beside those of `_Round`."""


class _Round(NamedTuple):
    """An announcement, and the manifest by the same coordinator that it is under."""

    manifest: Said
    terms: RunManifest
    announced: Said
    announcement: Announcement

    @property
    def oracles(self) -> dict[Pubkey, Pubkey]:
        """The oracle key of each listed validator."""
        return {entry.pubkey: entry.oracle for entry in self.announcement.validators}


def _round_of(evidence: Evidence, run: EventId, announcement: EventId) -> _Round | None:
    manifest, announced = evidence.said.get(run), evidence.said.get(announcement)
    if manifest is None or announced is None or manifest.message.author != announced.message.author:
        return None
    terms, opens = manifest.message.body, announced.message.body
    if not isinstance(terms, RunManifest) or not isinstance(opens, Announcement) or opens.run != run:
        return None
    return _Round(manifest, terms, announced, opens)


def void_results(evidence: Evidence) -> Iterator[Finding]:
    """A coordinator closed a round with work that was not attested, or on a state that does not follow from it."""
    for said, body in evidence.of(Result):
        round_ = _round_of(evidence, body.run, body.announcement)
        if round_ is None or round_.manifest.message.author != said.message.author:
            continue
        fault = _void(evidence, round_, body)
        if fault is not None:
            text, witnesses = fault
            text = f"the result {said.event.id} of round {body.round} by {said.message.author} is void: {text}"
            yield Finding(said.message.author, text, events_of(round_.manifest, round_.announced, said, *witnesses))


def _void(evidence: Evidence, round_: _Round, body: Result) -> _Fault | None:
    workers = [item.worker for item in body.accepted]
    if workers != sorted(set(workers)):
        return "its list is not sorted, or repeats a worker", ()
    before = round_.announcement.state_id
    if not workers:
        return None if body.state_id == before else ("it uses no work but changes the state", ())
    for said, receipt in evidence.of(Receipt):
        ours = receipt.announcement == body.announcement and said.message.author == round_.manifest.message.author
        if ours and len(receipt.commitments) != body.committed:
            return f"it divides by {body.committed}, {len(receipt.commitments)} commitments are pinned", (said,)
    digests, weights = [item.delta.sha256 for item in body.accepted], [item.weight for item in body.accepted]
    try:
        state_id = next_state_id(before, digests, weights, round_.terms.outer, body.committed)
    except OverflowError:
        return "a weight, or the number of commitments, is none", ()
    if state_id != body.state_id:
        return "its state does not follow from the deltas and weights that it names", ()
    return next((fault for item in body.accepted if (fault := _unattested(evidence, round_, body, item)) is not None), None)


def _unattested(evidence: Evidence, round_: _Round, body: Result, item: Accepted) -> _Fault | None:
    """Too few of the attestations that the result cites say so. Nothing is proved while one of them is missing."""
    if not 1 <= item.level <= len(round_.terms.scoring.levels_ppm):
        return f"level {item.level} of {item.worker} is none", ()
    cited = [evidence.said[event_id] for event_id in body.attestations if event_id in evidence.said]
    if len(cited) < len(body.attestations):
        return None
    authors = {said.message.author for said in cited if _attests(said, round_, item)}
    if len(authors) >= round_.terms.threshold:
        return None
    said = f"by {len(authors)} of the validators that it cites, {round_.terms.threshold} are needed"
    return f"level {item.level} of {item.worker} is attested {said}", tuple(cited)


def _attests(said: Said, round_: _Round, item: Accepted) -> bool:
    body, oracle = said.message.body, round_.oracles.get(said.message.author)
    if not isinstance(body, Attestation) or body.announcement != round_.announced.event.id:
        return False
    return any(one.payee == item.worker and one.oracle == oracle and sum(one.digits) >= item.level for one in body.items)


def unfounded_attestations(evidence: Evidence) -> Iterator[Finding]:
    """A validator attested other levels than those that follow from the verdicts that it names, or named what is none.

    The levels of rounds in which earlier rounds count too (the provenance test) are not judged: which of them it knew, it does not say.
    """
    for said, body in evidence.of(Attestation):
        round_ = _round_of(evidence, body.run, body.announcement)
        if round_ is None or said.message.author not in round_.oracles or any(one not in evidence.said for one in body.verdicts):
            continue
        named = [evidence.said[event_id] for event_id in body.verdicts]
        text = _unfounded(round_, body, named)
        if text is not None:
            text = f"{said.message.author} attested in round {body.round} what does not follow: {text}"
            yield Finding(said.message.author, text, events_of(round_.manifest, round_.announced, said, *named))


def _unfounded(round_: _Round, body: Attestation, named: list[Said]) -> str | None:
    verdicts: dict[Pubkey, Verdict] = {}
    for said in named:
        verdict, author = said.message.body, said.message.author
        fits = isinstance(verdict, Verdict) and (verdict.announcement, verdict.receipt) == (body.announcement, body.receipt)
        if not isinstance(verdict, Verdict) or not fits or author not in round_.oracles or author in verdicts:
            return f"{said.event.id} is no verdict of this round, or another one of the same validator"
        verdicts[author] = verdict
    if len(verdicts) < round_.terms.threshold:
        return f"it names {len(verdicts)} verdicts, {round_.terms.threshold} are needed"
    spec, workers = round_.terms.scoring, tuple(item.payee for item in body.items)
    judged = spec.min_provenance_milli_z <= 0 or body.round < spec.plausibility_from_round
    same = all(verdict.round == body.round and tuple(score.worker for score in verdict.scores) == workers for verdict in verdicts.values())
    if not judged or not same or spec.floor_nanonats < 1:
        return None
    follows = standings(list(verdicts.values()), workers, spec, {})
    for item in body.items:
        expected = thermometer(follows[item.payee].level, len(spec.levels_ppm))
        if item.digits != expected:
            return f"level {sum(item.digits)} of {item.payee}, its verdicts give level {sum(expected)}"
    return None
