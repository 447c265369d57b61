"""What may be said once, and what about: two answers to one question are an equivocation (design decision 7)."""

from __future__ import annotations

from typing import Final

from nostrain.protocol import messages as m

ONCE: Final[dict[type, tuple[str, ...]]] = {
    m.Announcement: ("run", "parent"),
    m.Receipt: ("announcement",),
    m.Acknowledgement: ("announcement",),
    m.Reveal: ("commitment",),
    m.VerdictHash: ("announcement",),
    m.Verdict: ("announcement",),
    m.Attestation: ("announcement",),
    m.EpochAttestation: ("announcement",),
    m.Result: ("announcement",),
    m.Confirmation: ("result",),
    m.Offer: ("announcement", "payee"),
    m.Choice: ("offer",),
    m.Openings: ("offer",),
    m.Invoices: ("offer",),
}
"""Not here: commitments (a worker may make several, the receipt pins one), enrolments (the newest counts), manifests, disputes, and oracle
announcements (25 an event; see `audit.oracles`)."""

CITED: Final = (m.Announcement, m.Receipt, m.Verdict, m.Attestation, m.EpochAttestation, m.Result, m.Offer)
"""Others refer to these by id, so the same words under two ids are two already. Of the rest only different words contradict each other."""


def question(body: m.Body) -> tuple[str, ...] | None:
    """What the body answers, beside its type and author; None for what may be said more than once."""
    fields = ONCE.get(type(body))
    return None if fields is None else tuple(str(getattr(body, name)) for name in fields)
