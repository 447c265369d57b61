"""From enrolments to reveals: who takes part, what is promised, and what is then shown (kinds 8657, 8651–8654, 8659, 8670)."""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.protocol.manifest import BlobRef
from nostrain.units import Digest, EventId, Pubkey, UnixTime


class Payout(msgspec.Struct, frozen=True):
    """A BOLT 12 offer (`lno1…`) of any amount, parsed by `wire`; `networks` are those that it is for, as lightningd names them."""

    bolt12: str
    networks: tuple[str, ...]


class NodeAddress(msgspec.Struct, frozen=True):
    """A Lightning node that takes a channel: its id (compressed key, hex) and `host:port`, the host an IP address or an onion service."""

    id: str
    address: str


class Enrolment(msgspec.Struct, frozen=True, tag_field="type", tag="enrolment"):
    """Kind 8657: "I take part in this run". Validators add their oracle key, its endorsement of the Nostr key, the end of their hash chain, and
    the offer to which their share of the fees is paid: without one they have none. A worker may add its Lightning node, if it would take a channel,
    and how many tokens a second it trained on lately (0: not measured yet).
    """

    run: EventId
    role: Literal["worker", "validator"]
    name: str
    engine: str = ""
    oracle: Pubkey | None = None
    endorsement: str | None = None
    chain_end: Digest | None = None
    chain_length: int = 0
    offer: Payout | None = None
    node: NodeAddress | None = None
    tokens_per_s: int = 0
    v: int = 1


class ValidatorEntry(msgspec.Struct, frozen=True):
    """A validator as the announcement lists it. The endorsement by its oracle key makes the entry whole: no other event is needed to believe it."""

    pubkey: Pubkey
    oracle: Pubkey
    endorsement: str
    chain_end: Digest
    chain_length: int


class Deadlines(msgspec.Struct, frozen=True):
    """Last second of each phase; a phase ends early once everyone whose turn it is has spoken."""

    commit_by: UnixTime
    acknowledge_by: UnixTime
    reveal_by: UnixTime
    hash_by: UnixTime
    verdict_by: UnixTime
    attest_by: UnixTime


class Announcement(msgspec.Struct, frozen=True, tag_field="type", tag="announcement"):
    """Kind 8651: a round opens on `state_id`. `parent` is the manifest or the previous result. Both lists are sorted by key."""

    run: EventId
    round: int
    parent: EventId
    state_id: Digest
    workers: tuple[Pubkey, ...]
    validators: tuple[ValidatorEntry, ...]
    deadlines: Deadlines
    v: int = 1


class OracleItem(msgspec.Struct, frozen=True):
    """A dlcspecs oracle_announcement TLV (base64), parsed and its signature verified by `wire`. `digest` is the SHA-256 of the TLV."""

    payee: Pubkey
    tlv: str
    event_id: str
    oracle: Pubkey
    nonces: tuple[str, ...]
    maturity: UnixTime
    digest: Digest


class OracleAnnouncements(msgspec.Struct, frozen=True, tag_field="type", tag="oracle_announcements"):
    """Kind 8670: one thermometer per enrolled worker, at most 25 an event."""

    run: EventId
    announcement: EventId
    round: int
    items: tuple[OracleItem, ...]
    v: int = 1


class Commitment(msgspec.Struct, frozen=True, tag_field="type", tag="commitment"):
    """Kind 8652: binds author, round, salt and blob before anything is shown (`protocol.digests.commitment_digest`).

    `state_id` is the announced state, which the delta is scored on and applied to; `trained_from`, said in delayed runs only, the one before.
    """

    run: EventId
    announcement: EventId
    round: int
    commitment: Digest
    state_id: Digest
    trained_from: Digest | msgspec.UnsetType = msgspec.UNSET
    v: int = 1


class Receipt(msgspec.Struct, frozen=True, tag_field="type", tag="receipt"):
    """Kind 8653: the commitments that count, sorted. Canonical: see `protocol.digests.receipt_time`."""

    run: EventId
    announcement: EventId
    round: int
    commitments: tuple[EventId, ...]
    v: int = 1


class Acknowledgement(msgspec.Struct, frozen=True, tag_field="type", tag="acknowledgement"):
    """Kind 8659: a validator has seen the receipt, and now shows the chain link that seeds its evaluation."""

    run: EventId
    announcement: EventId
    round: int
    receipt: EventId
    link: Digest
    v: int = 1


class Reveal(msgspec.Struct, frozen=True, tag_field="type", tag="reveal"):
    """Kind 8654: the blob and the salt behind a commitment."""

    run: EventId
    announcement: EventId
    round: int
    commitment: EventId
    salt: Digest
    blob: BlobRef
    v: int = 1
