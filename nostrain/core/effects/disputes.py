"""Disputes: evidence is made into one, or somebody's is checked (kind 8658), and how that ends."""

from __future__ import annotations

import msgspec

from nostrain.core.effects.base import EffectBase
from nostrain.protocol.event import Event
from nostrain.protocol.messages import Dispute
from nostrain.units import EventId, Pubkey


class Prove(EffectBase, frozen=True, tag="prove"):
    """See what `events` prove against one of `accused` in a run."""

    run: EventId
    accused: tuple[Pubkey, ...]
    events: tuple[Event, ...]


class CheckDispute(EffectBase, frozen=True, tag="check_dispute"):
    """Check a dispute; the evidence that is not among `events` is asked of the relays."""

    dispute: Dispute
    events: tuple[Event, ...]


class Proved(msgspec.Struct, frozen=True, tag="proved"):
    """What the evidence shows; `about` names the type of what was said twice, if it is that."""

    dispute: Dispute
    text: str
    about: str


class Unheard(msgspec.Struct, frozen=True, tag="unheard"):
    """The evidence is not to be had: nothing is known."""
