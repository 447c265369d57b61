"""Whom a run is waiting for, as far as public events tell: what a person wants to know when nothing happens any more."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import msgspec

from nostrain.core.rounds.scoring import pinned
from nostrain.core.rows import Round, Run
from nostrain.devnet.layout import Participant
from nostrain.devnet.observer import Observer
from nostrain.protocol.manifest import TimingSpec
from nostrain.units import Pubkey

START_S = 300.0
"""Longest silence before the first round: the coordinator builds the run, everyone fetches and checks the first checkpoint."""
MARGIN_S = 90.0
"""On top of all phases of a round together; and for the confirmations of the last one."""


def longest_silence(observer: Observer) -> float:
    """Seconds without any event after which a run cannot be alive any more."""
    run = observer.run
    if run is None or (run.open is None and run.round == 0):
        return START_S
    return MARGIN_S + (0 if run.finished else round_s(run.manifest.timing))


def round_s(timing: TimingSpec) -> int:
    """All phases of a round together."""
    return sum(msgspec.structs.astuple(timing))


def awaited(observer: Observer, participants: Sequence[Participant]) -> tuple[list[str], str]:
    """Names of those whose turn it is, and what they have not done."""
    run = observer.run
    lead = [one.name for one in participants if one.role == "coordinator"]
    if run is None:
        return lead, "no run was published"
    if run.finished:
        watched = observer.rounds[run.round]
        return names(observer, observer.expected(watched.round) - set(watched.confirmations)), f"no confirmation of round {run.round}"
    round_ = observer.state.rows.get(f"round/{run.open}")
    if not isinstance(round_, Round):
        absent = [one.name for one in participants if one.name not in lead and one.pubkey not in run.enrolled]
        return (absent, "not enrolled") if absent else (lead, f"round {run.round + 1} was not opened")
    if time.time() > round_.announcement.deadlines.attest_by + MARGIN_S:
        return lead, f"round {run.round + 1} was not closed in time"
    missing, what = missing_in(run, round_)
    return (names(observer, missing) or lead), f"no {what} in round {run.round + 1}"


def missing_in(run: Run, round_: Round) -> tuple[set[Pubkey], str]:
    """Who has not said the first thing that is missing in an open round, and what it is; nobody when it is the coordinator's turn."""
    validators = {entry.pubkey for entry in round_.announcement.validators}
    acknowledged = set(round_.acknowledgements)
    if round_.receipt is None:
        return set(round_.announcement.workers) - {author for author, _, _ in round_.commitments.values()}, "commitment or receipt"
    if len(acknowledged) < run.manifest.threshold:
        return validators - acknowledged, "acknowledgement"
    turns: tuple[tuple[Collection[Pubkey], Collection[Pubkey], str], ...] = (
        (pinned(round_), round_.reveals, "reveal"),
        (acknowledged, round_.verdicts, "verdict"),
        (acknowledged, round_.attested, "attestation"),
    )
    for due, done, what in turns:
        if missing := set(due) - set(done):
            return missing, what
    return set(), "result"


def names(observer: Observer, keys: Collection[Pubkey]) -> list[str]:
    """Names of `keys`, sorted."""
    return sorted(map(observer.name, keys))
