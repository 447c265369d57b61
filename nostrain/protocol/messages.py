"""What participants say: the content of every event kind (design section 8), as frozen structs.

`wire.messages` maps them to kinds, tags and JSON. A body names everything it depends on by event id, so that the events of a run
form one graph: manifest → announcement → (commitment → receipt → acknowledgement → reveal → verdict → attestation) → result → announcement.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.protocol.manifest import BlobRef, RunManifest
from nostrain.units import Digest, EventId, Msat, Ppm, Pubkey, UnixTime


class Enrolment(msgspec.Struct, frozen=True, tag_field="type", tag="enrolment"):
    """Kind 8657: "I take part in this run". Validators add their oracle key, its endorsement of the Nostr key, and the end of their hash chain."""

    run: EventId
    role: Literal["worker", "validator"]
    name: str
    engine: str = ""
    oracle: Pubkey | None = None
    endorsement: str | None = None
    chain_end: Digest | None = None
    chain_length: int = 0
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
    """Kind 8652: binds author, round, salt and blob before anything is shown (`protocol.digests.commitment_digest`)."""

    run: EventId
    announcement: EventId
    round: int
    commitment: Digest
    state_id: Digest
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


class Score(msgspec.Struct, frozen=True):
    """What one validator measured of one worker (units as in `protocol.jobs.CandidateScore`). `error` makes it a refusal."""

    worker: Pubkey
    error: str | None = None
    weight: int = 0
    gain: int = 0
    losses_after: tuple[int, ...] = ()
    assigned_gain: int = 0
    provenance: int = 0
    provenance_se: int = 0
    overlap_ppm: Ppm = Ppm(0)
    overlap_round_ppm: Ppm = Ppm(0)


class VerdictHash(msgspec.Struct, frozen=True, tag_field="type", tag="verdict_hash"):
    """Kind 8655, first stage: the digest of the verdict, so that nobody copies another's."""

    run: EventId
    announcement: EventId
    round: int
    receipt: EventId
    digest: Digest
    v: int = 1


class Verdict(msgspec.Struct, frozen=True, tag_field="type", tag="verdict"):
    """Kind 8655, second stage: losses (nanonats, per batch), checks and gains, one score for each pinned commitment."""

    run: EventId
    announcement: EventId
    round: int
    receipt: EventId
    salt: Digest
    state_id: Digest
    losses_before: tuple[int, ...]
    scores: tuple[Score, ...]
    v: int = 1


class AttestationItem(msgspec.Struct, frozen=True):
    """A dlcspecs oracle_attestation TLV (base64), parsed and its signatures verified by `wire`. `digits` are the 0/1 outcomes."""

    payee: Pubkey
    tlv: str
    event_id: str
    oracle: Pubkey
    nonces: tuple[str, ...]
    digits: tuple[int, ...]
    scalars: tuple[str, ...]


class Attestation(msgspec.Struct, frozen=True, tag_field="type", tag="attestation"):
    """Kind 8671: the levels that follow from the named verdicts, one attestation for each pinned commitment's author."""

    run: EventId
    announcement: EventId
    round: int
    receipt: EventId
    verdicts: tuple[EventId, ...]
    items: tuple[AttestationItem, ...]
    v: int = 1


class Accepted(msgspec.Struct, frozen=True):
    """A delta that the result uses: its weight c_i (1/65536) and the level it reached."""

    worker: Pubkey
    delta: BlobRef
    weight: int
    level: int


class Refused(msgspec.Struct, frozen=True):
    """A pinned commitment that the result does not use, and why."""

    worker: Pubkey
    reason: str


class Result(msgspec.Struct, frozen=True, tag_field="type", tag="result"):
    """Kind 8656: closes a round. `accepted` is sorted by worker and rests on the cited attestations alone; with none accepted the state stays."""

    run: EventId
    announcement: EventId
    round: int
    attestations: tuple[EventId, ...]
    accepted: tuple[Accepted, ...]
    refused: tuple[Refused, ...]
    committed: int
    state_id: Digest
    root: Digest
    checkpoint: BlobRef
    v: int = 1


class Confirmation(msgspec.Struct, frozen=True, tag_field="type", tag="confirmation"):
    """Kind 8667: the state that the author itself computed from a result. Validators add the loss on the held-out shard."""

    run: EventId
    announcement: EventId
    round: int
    result: EventId
    state_id: Digest
    root: Digest
    validation_nanonats: int | None = None
    v: int = 1


class LevelLock(msgspec.Struct, frozen=True):
    """One instance of the threshold lock of one level (design section 6): payment hash, E, Feldman vector, C_j by oracle index."""

    payment_hash: Digest
    ephemeral: str
    feldman: tuple[str, ...]
    shares: tuple[tuple[int, str], ...]


class Offer(msgspec.Struct, frozen=True, tag_field="type", tag="offer"):
    """Kind 8680, private: for every level the digests of c candidate locks, bound to the oracle announcements they use (by digest)."""

    run: EventId
    announcement: EventId
    round: int
    payee: Pubkey
    amounts_msat: tuple[Msat, ...]
    oracles: tuple[Digest, ...]
    instances: tuple[tuple[Digest, ...], ...]
    v: int = 1


class Choice(msgspec.Struct, frozen=True, tag_field="type", tag="choice"):
    """Kind 8681, private, by the payee: which instance of each level is to be used; the others are to be opened."""

    run: EventId
    announcement: EventId
    round: int
    offer: EventId
    chosen: tuple[int, ...]
    v: int = 1


class Openings(msgspec.Struct, frozen=True, tag_field="type", tag="openings"):
    """Kind 8681, private, by the payer: the seeds of the instances not chosen, and the locks of those chosen."""

    run: EventId
    announcement: EventId
    round: int
    offer: EventId
    seeds: tuple[tuple[Digest, ...], ...]
    locks: tuple[LevelLock, ...]
    v: int = 1


class Invoices(msgspec.Struct, frozen=True, tag_field="type", tag="invoices"):
    """Kind 8682, private, by the payee: one hold invoice (BOLT 11) a level, on the payment hashes of the chosen locks."""

    run: EventId
    announcement: EventId
    round: int
    offer: EventId
    bolt11: tuple[str, ...]
    v: int = 1


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
    | Result
    | Confirmation
)
PrivateBody = Offer | Choice | Openings | Invoices
Body = PublicBody | PrivateBody


class Message(msgspec.Struct, frozen=True):
    """A verified event, understood."""

    id: EventId
    author: Pubkey
    created_at: UnixTime
    body: Body
