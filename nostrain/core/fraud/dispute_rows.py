"""Rows of evidence and disputes."""

from __future__ import annotations

import msgspec

from nostrain.core.tables import ComplaintState, SuspicionState
from nostrain.protocol.event import Event
from nostrain.protocol.messages import Dispute
from nostrain.units import EventId, Pubkey, UnixTime


class Heard(msgspec.Struct, frozen=True, tag="heard"):
    """Row `heard-<what it is about>/<type>/<author>/<event id>`: a signed event that was taken, kept as evidence while its round is kept.

    `about` is the question that it answers, where only one answer is allowed.
    """

    event: Event
    about: tuple[str, ...] | None


class Suspicion(msgspec.Struct, frozen=True, tag="suspicion"):
    """Row `suspicion/<accused>/<what for>`: evidence of ours that may prove something. `at`: when we publish it, unless others did before.

    Events are dropped once the dispute is said. `published` are those that the relays have from us.
    """

    accused: tuple[Pubkey, ...]
    events: tuple[Event, ...]
    at: UnixTime
    state: SuspicionState = SuspicionState.PROVING
    dispute: Dispute | None = None
    published: tuple[EventId, ...] = ()


class Complaint(msgspec.Struct, frozen=True, tag="complaint"):
    """Row `complaint/<digest of the dispute>`: what somebody claims, and what we found. Of our own, `said` tells whether anybody has published it yet."""

    author: Pubkey
    dispute: Dispute
    state: ComplaintState = ComplaintState.QUEUED
    said: bool = True
    text: str = ""
