"""Two signed words where the protocol allows one: two children of one parent, two answers to one question (design decision 7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nostrain.audit.evidence import Evidence, Finding, Said, events_of
from nostrain.protocol import messages as m
from nostrain.protocol.contradictions import CITED, question
from nostrain.units import Pubkey


def equivocations(evidence: Evidence) -> Iterator[Finding]:
    """One finding for each author and question with more than one answer: the first two of them by id."""
    first: dict[tuple[Any, ...], Said] = {}
    told: set[tuple[Any, ...]] = set()
    for said in evidence.said.values():
        body = said.message.body
        about = question(body)
        if about is None:
            continue
        key = (type(body), said.message.author, *about)
        before = first.setdefault(key, said)
        if before is said or key in told or (not isinstance(body, CITED) and before.message.body == body):
            continue
        told.add(key)
        yield Finding(said.message.author, _text(said.message.author, body, before, said), events_of(before, said))


def _text(author: Pubkey, body: m.Body, one: Said, other: Said) -> str:
    what = type(body).__name__.lower()
    number = "" if not hasattr(body, "round") else f" of round {body.round}"
    return f"{author} signed two different {what}s{number}: {one.event.id} and {other.event.id}"
