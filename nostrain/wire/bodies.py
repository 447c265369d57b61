"""Contents of events that carry what has a format of its own (DLC TLVs, a BOLT 12 offer), before that is parsed."""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.protocol.messages import NodeAddress
from nostrain.units import Digest, EventId, Pubkey


class TlvItem(msgspec.Struct, frozen=True):
    """An oracle TLV as it travels: base64, with the payee that it is about."""

    payee: Pubkey
    tlv: str


class WireOracleAnnouncements(msgspec.Struct, frozen=True, tag_field="type", tag="oracle_announcements"):
    """`protocol.messages.OracleAnnouncements` before its TLVs are parsed."""

    run: EventId
    announcement: EventId
    round: int
    items: tuple[TlvItem, ...]
    v: int = 1


class WireAttestation(msgspec.Struct, frozen=True, tag_field="type", tag="attestation"):
    """`protocol.messages.Attestation` before its TLVs are parsed."""

    run: EventId
    announcement: EventId
    round: int
    receipt: EventId
    verdicts: tuple[EventId, ...]
    items: tuple[TlvItem, ...]
    v: int = 1


class WireEnrolment(msgspec.Struct, frozen=True, tag_field="type", tag="enrolment"):
    """`protocol.messages.Enrolment` before its offer is parsed."""

    run: EventId
    role: Literal["worker", "validator"]
    name: str
    engine: str = ""
    oracle: Pubkey | None = None
    endorsement: str | None = None
    chain_end: Digest | None = None
    chain_length: int = 0
    offer: str | None = None
    node: NodeAddress | None = None
    tokens_per_s: int = 0
    v: int = 1


class WireEpochAttestation(msgspec.Struct, frozen=True, tag_field="type", tag="epoch_attestation"):
    """`protocol.messages.EpochAttestation` before its TLVs are parsed."""

    run: EventId
    announcement: EventId
    round: int
    through: int
    verdicts: Digest
    items: tuple[TlvItem, ...]
    v: int = 1
