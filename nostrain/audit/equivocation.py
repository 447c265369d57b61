"""Two signed words where the protocol allows one: two children of one parent, two answers to one question (design decision 7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from nostrain.audit.evidence import Evidence, Finding, Said, events_of
from nostrain.protocol import messages as m
from nostrain.units import Pubkey

ONCE: Final[dict[type, tuple[str, ...]]] = {
    m.Announcement: ("run", "parent"),
    m.Receipt: ("announcement",),
    m.Acknowledgement: ("announcement",),
    m.Reveal: ("commitment",),
    m.VerdictHash: ("announcement",),
    m.Verdict: ("announcement",),
    m.Attestation: ("announcement",),
    m.Result: ("announcement",),
    m.Confirmation: ("result",),
    m.Offer: ("announcement", "payee"),
    m.Choice: ("offer",),
    m.Openings: ("offer",),
    m.Invoices: ("offer",),
}
"""What may be said once, and what about. Not here: commitments (a worker may make several, the receipt pins one), enrolments (the newest
counts), manifests, and oracle announcements (25 an event; see `audit.oracles`)."""

CITED: Final = (m.Announcement, m.Receipt, m.Verdict, m.Attestation, m.Result, m.Offer)
"""Others refer to these by id, so the same words under two ids are two already. Of the rest only different words contradict each other."""


def equivocations(evidence: Evidence) -> Iterator[Finding]:
    """One finding for each author and question with more than one answer: the first two of them by id."""
    first: dict[tuple[Any, ...], Said] = {}
    told: set[tuple[Any, ...]] = set()
    for said in evidence.said.values():
        body = said.message.body
        fields = ONCE.get(type(body))
        if fields is None:
            continue
        about = tuple(getattr(body, name) for name in fields)
        question = (type(body), said.message.author, *about)
        before = first.setdefault(question, said)
        if before is said or question in told or (not isinstance(body, CITED) and before.message.body == body):
            continue
        told.add(question)
        yield Finding(said.message.author, _text(said.message.author, body, before, said), events_of(before, said))


def _text(author: Pubkey, body: m.Body, one: Said, other: Said) -> str:
    what = type(body).__name__.lower()
    number = "" if not hasattr(body, "round") else f" of round {body.round}"
    return f"{author} signed two different {what}s{number}: {one.event.id} and {other.event.id}"
