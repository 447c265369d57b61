"""Proofs as data. Finding one and checking one are the same question, asked of many events or of the proof's own alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from nostrain.audit.equivocation import equivocations
from nostrain.audit.evidence import Evidence, Finding, read_evidence
from nostrain.audit.offers import false_offers
from nostrain.audit.oracles import non_prefix_digits, reused_nonces, two_announcements, two_outcomes
from nostrain.audit.results import unfounded_attestations, void_results
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event
from nostrain.protocol.limits import MAX_EVIDENCE
from nostrain.protocol.messages import Proof, ProofKind
from nostrain.units import is_hex32
from nostrain.wire.event import short_reason

MAX_BYTES: Final = 1 << 20

__all__ = ["MAX_BYTES", "SEARCHES", "Proof", "check_proof", "encode_proof", "find_proofs", "parse_proof_untrusted"]

SEARCHES: Final[dict[ProofKind, Callable[[Evidence], Iterator[Finding]]]] = {
    "equivocation": equivocations,
    "reused_nonce": reused_nonces,
    "two_announcements": two_announcements,
    "two_outcomes": two_outcomes,
    "non_prefix_digits": non_prefix_digits,
    "false_offer": false_offers,
    "void_result": void_results,
    "unfounded_attestation": unfounded_attestations,
}


def find_proofs(events: Iterable[Event]) -> list[Proof]:
    """Every proof that the events hold: kind by kind, one for each offence (for nonces, one for each oracle). Order of events is no matter.

    Private events (offers, choices, openings, invoices) are evidence like any others, once one of the parties shows them.
    """
    evidence = read_evidence(events)
    return [Proof(kind, finding.accused, finding.events) for kind, search in SEARCHES.items() for finding in search(evidence)]


def check_proof(proof: Proof) -> str:
    """What the proof shows, in one line. Verifies every signature; believes nothing but signatures.

    Raises RemoteProtocolError when it does not show that.
    """
    if len(proof.events) > MAX_EVIDENCE:
        raise RemoteProtocolError("proof", f"{len(proof.events)} events, at most {MAX_EVIDENCE} are taken")
    evidence = read_evidence(proof.events)
    if evidence.unread:
        raise RemoteProtocolError("proof", f"{evidence.unread} of its events are not valid")
    for finding in SEARCHES[proof.kind](evidence):
        if finding.accused == proof.accused:
            return f"{proof.kind}: {finding.text}"
    raise RemoteProtocolError("proof", f"its {len(proof.events)} events do not show any {proof.kind} by {proof.accused}")


def encode_proof(proof: Proof) -> bytes:
    """One line of JSON."""
    return msgspec.json.encode(proof)


def parse_proof_untrusted(data: bytes | str) -> Proof:
    """A proof as somebody claims it: see `check_proof`. Raises RemoteProtocolError."""
    if len(data) > MAX_BYTES:
        raise RemoteProtocolError("proof", f"{len(data)} bytes, at most {MAX_BYTES} are taken")
    try:
        proof = msgspec.json.decode(data, type=Proof)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("proof", short_reason(error)) from None
    if proof.v != 1 or not is_hex32(proof.accused):
        raise RemoteProtocolError("proof", "of an unknown version, or accuses no key")
    return proof
