"""What participants say: the content of every event kind (design section 8), as frozen structs.

`wire.messages` maps them to kinds, tags and JSON. A body names everything it depends on by event id, so that the events of a run
form one graph: manifest → announcement → (commitment → receipt → acknowledgement → reveal → verdict → attestation) → result → announcement.
"""

from __future__ import annotations

import msgspec

from nostrain.protocol.event import Event
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages.dispute import Dispute, Proof, ProofKind
from nostrain.protocol.messages.escrow import Choice, Invoices, LevelLock, Offer, Openings
from nostrain.protocol.messages.judgement import (
    Accepted,
    Attestation,
    AttestationItem,
    Confirmation,
    EpochAttestation,
    Refused,
    Result,
    Score,
    Verdict,
    VerdictHash,
)
from nostrain.protocol.messages.round import (
    Acknowledgement,
    Announcement,
    Commitment,
    Deadlines,
    Enrolment,
    NodeAddress,
    OracleAnnouncements,
    OracleItem,
    Payout,
    Receipt,
    Reveal,
    ValidatorEntry,
)
from nostrain.units import EventId, Pubkey, UnixTime

__all__ = [
    "Accepted",
    "Acknowledgement",
    "Announcement",
    "Attestation",
    "AttestationItem",
    "Body",
    "Choice",
    "Commitment",
    "Confirmation",
    "Deadlines",
    "Dispute",
    "Enrolment",
    "EpochAttestation",
    "Invoices",
    "LevelLock",
    "Message",
    "NodeAddress",
    "Offer",
    "Openings",
    "OracleAnnouncements",
    "OracleItem",
    "Payout",
    "PrivateBody",
    "Proof",
    "ProofKind",
    "PublicBody",
    "Receipt",
    "Refused",
    "Result",
    "Reveal",
    "Score",
    "ValidatorEntry",
    "Verdict",
    "VerdictHash",
]

PublicBody = (
    RunManifest
    | Enrolment
    | Announcement
    | OracleAnnouncements
    | Commitment
    | Receipt
    | Acknowledgement
    | Reveal
    | VerdictHash
    | Verdict
    | Attestation
    | EpochAttestation
    | Result
    | Confirmation
    | Dispute
)
PrivateBody = Offer | Choice | Openings | Invoices
Body = PublicBody | PrivateBody


class Message(msgspec.Struct, frozen=True):
    """A verified event, understood; and the event itself, which may become evidence."""

    id: EventId
    author: Pubkey
    created_at: UnixTime
    body: Body
    event: Event | None = None
