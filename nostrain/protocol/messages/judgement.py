"""What validators measured and attest, and the result that follows (kinds 8655, 8671, 8656, 8667)."""

from __future__ import annotations

import msgspec

from nostrain.protocol.manifest import BlobRef
from nostrain.units import Digest, EventId, Ppm, Pubkey


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


class EpochAttestation(msgspec.Struct, frozen=True, tag_field="type", tag="epoch_attestation"):
    """Kind 8671: the levels that follow from the mean scores of an epoch's rounds, up to round `through`.

    `announcement` and `round` are those of the round that opened the epoch. `verdicts` is the digest of all verdicts that the rounds'
    attestations name (`core.rounds.epoch.verdicts_digest`): validators that saw the same attestations sign the same levels.
    """

    run: EventId
    announcement: EventId
    round: int
    through: int
    verdicts: Digest
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
