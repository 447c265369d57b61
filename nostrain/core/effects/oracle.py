"""A validator's oracle: announcements, attestations, chain links, and how that ends."""

from __future__ import annotations

import msgspec

from nostrain.core.effects.base import EffectBase
from nostrain.protocol.messages import AttestationItem, OracleItem
from nostrain.units import Digest, EventId, Pubkey, UnixTime


class Credentials(EffectBase, frozen=True, tag="credentials"):
    """The oracle's public half for a run: key, endorsement, chain end."""

    run: EventId
    chain_length: int


class ChainLink(EffectBase, frozen=True, tag="chain_link"):
    """Link number `index` of our hash chain."""

    run: EventId
    chain_length: int
    index: int


class OracleAnnounce(EffectBase, frozen=True, tag="oracle_announce"):
    """Announce one thermometer of `digits` digits for each payee: (payee, DLC event id)."""

    events: tuple[tuple[Pubkey, str], ...]
    digits: int
    maturity: UnixTime


class OracleAttest(EffectBase, frozen=True, tag="oracle_attest"):
    """Attest (announcement TLV base64, payee, digits), each digit once and for ever."""

    outcomes: tuple[tuple[str, Pubkey, tuple[int, ...]], ...]


class CredentialsRead(msgspec.Struct, frozen=True, tag="credentials_read"):
    """Public half of our oracle."""

    oracle: Pubkey
    endorsement: str
    chain_end: Digest


class LinkRead(msgspec.Struct, frozen=True, tag="link_read"):
    """One link of our hash chain."""

    link: Digest


class OracleAnnounced(msgspec.Struct, frozen=True, tag="oracle_announced"):
    """Announcement TLVs, in the order asked."""

    items: tuple[OracleItem, ...]


class OracleAttested(msgspec.Struct, frozen=True, tag="oracle_attested"):
    """Attestation TLVs, in the order asked."""

    items: tuple[AttestationItem, ...]
