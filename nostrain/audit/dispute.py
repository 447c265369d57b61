"""Disputes (kind 8658) as a stranger sees them: is what is claimed shown, and does it concern this run?"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from nostrain.audit.evidence import read_evidence
from nostrain.audit.proof import Proof, check_proof, find_proofs
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Dispute, ProofKind
from nostrain.units import EventId, Pubkey

OF_A_RUN: Final[frozenset[ProofKind]] = frozenset({"equivocation", "false_offer", "void_result", "unfounded_attestation"})
"""What somebody did in one run. What an oracle signed is its own whichever run it was for: its key is spoiled everywhere."""


class Shown(NamedTuple):
    """What a dispute shows, in one line; and, of an equivocation, the type of what was said twice."""

    text: str
    about: str


def check_dispute(dispute: Dispute, events: Iterable[Event]) -> Shown:
    """What `dispute` shows by `events`, which have to be the ones that it names.

    Raises RemoteProtocolError when it does not show what it claims, or of another run.
    """
    proof = Proof(dispute.kind, dispute.accused, tuple(sorted(events, key=lambda event: event.id)))
    if tuple(event.id for event in proof.events) != dispute.evidence:
        raise RemoteProtocolError("dispute", "these are not the events that it names")
    text = check_proof(proof)
    bodies = [said.message.body for said in read_evidence(proof.events).said.values()]
    if dispute.kind in OF_A_RUN:
        runs = {body.run for body in bodies if not isinstance(body, RunManifest)}
        if runs != {dispute.run}:
            raise RemoteProtocolError("dispute", f"its evidence is of another run than {dispute.run[:8]}")
    return Shown(text, type(bodies[0]).__name__ if dispute.kind == "equivocation" else "")


def find_dispute(run: EventId, events: Iterable[Event], accused: Collection[Pubkey]) -> tuple[Dispute, Shown] | None:
    """The first dispute that `events` support against one of `accused` in `run`, with what it shows."""
    for proof in find_proofs(events):
        if proof.accused not in accused:
            continue
        dispute = Dispute(run, proof.kind, proof.accused, tuple(sorted({event.id for event in proof.events})))
        try:
            return dispute, check_dispute(dispute, proof.events)
        except RemoteProtocolError:
            continue
    return None
