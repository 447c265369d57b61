"""A dispute: that somebody did what it must not, as signed events alone show (kind 8658, design section 6)."""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.protocol.event import Event
from nostrain.units import EventId, Pubkey

ProofKind = Literal[
    "equivocation",
    "reused_nonce",
    "two_announcements",
    "two_outcomes",
    "non_prefix_digits",
    "false_offer",
    "void_result",
    "unfounded_attestation",
]


class Proof(msgspec.Struct, frozen=True):
    """That `accused` (a Nostr key; where `kind` is about oracles, an oracle's own) did what `kind` says, as `events` alone show."""

    kind: ProofKind
    accused: Pubkey
    events: tuple[Event, ...]
    v: int = 1


class Dispute(msgspec.Struct, frozen=True, tag_field="type", tag="dispute"):
    """Kind 8658, by anyone: the events whose ids are `evidence` (sorted) show that `accused` did what `kind` says, in this run.

    The events are on the relays: whoever disputes publishes them first, the private ones too, whose money is resolved by then.
    """

    run: EventId
    kind: ProofKind
    accused: Pubkey
    evidence: tuple[EventId, ...]
    v: int = 1
