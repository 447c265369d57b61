"""The state of a node: frozen rows under text keys. The journal stores each row on its own, so a commit writes only what changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from nostrain.core.ahead_rows import Ahead
from nostrain.core.effects import Effect
from nostrain.core.escrow.rows import Dues, Income, OwnOffer, Payee, Payer, Share, Split, Tickets
from nostrain.core.fraud.dispute_rows import Complaint, Heard, Suspicion
from nostrain.core.groups import grouped
from nostrain.core.identity import Identity
from nostrain.core.leap_rows import Leap
from nostrain.core.tables import DutyState, EpochState, LeadState, ReplicaState, SubmissionState
from nostrain.core.treasury.liquidity_rows import LightningNode
from nostrain.core.treasury.opening_rows import Opening, Openings
from nostrain.core.treasury.withdrawal_rows import Withdrawal
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.event import Event
from nostrain.protocol.jobs import AggregateResult
from nostrain.protocol.manifest import BlobRef, RunManifest
from nostrain.protocol.messages import (
    Acknowledgement,
    Announcement,
    Attestation,
    Body,
    Commitment,
    Enrolment,
    EpochAttestation,
    Message,
    OracleItem,
    Receipt,
    Result,
    Reveal,
    Verdict,
    VerdictHash,
)
from nostrain.units import BlockHeight, Digest, EventId, Pubkey, UnixTime


class Run(msgspec.Struct, frozen=True, tag="run"):
    """Row `run`: the run that we follow. `head` is the last element of the chain that is closed, the manifest or a result; `state_id` its state.

    `announcements` (by parent) and `results` (by announcement) go back as far as the rounds that are kept. `faulty` names those who
    contradicted themselves or were proved to cheat, and how; `accusers` counts refuted disputes by author. `attempt` counts the rounds that came to
    nothing since the state was reached; `before` is the state that the last closed round opened on. `distrusted` says with what the coordinator
    tried to cheat us or, as was proved to us, others: we work for it no more.
    """

    id: EventId
    coordinator: Pubkey
    manifest: RunManifest
    head: EventId
    state_id: Digest
    round: int = 0
    attempt: int = 0
    before: Digest | None = None
    enrolled: Mapping[Pubkey, tuple[EventId, UnixTime, Enrolment]] = {}
    announcements: Mapping[EventId, EventId] = {}
    results: Mapping[EventId, EventId] = {}
    missed: Mapping[Pubkey, int] = {}
    faulty: Mapping[Pubkey, str] = {}
    accusers: Mapping[Pubkey, int] = {}
    halted: str | None = None
    distrusted: str | None = None

    @property
    def open(self) -> EventId | None:
        """The announcement that continues the chain and has no result yet."""
        return self.announcements.get(self.head)

    @property
    def finished(self) -> bool:
        """Whether the last round of the manifest is closed."""
        return self.round >= self.manifest.rounds


class Round(msgspec.Struct, frozen=True, tag="round"):
    """Row `round/<announcement id>`: what has been said in a round, first word of each author.

    Commitments and attestations are kept by event id, thermometers by the digest of their TLV: someone who says two things must not split our
    view from that of others who heard the other one first (docs/adr/0015). `base`: the state that is trained from, in a delayed run.
    """

    id: EventId
    announcement: Announcement
    attempt: int = 0
    base: Digest | None = None
    oracles: Mapping[Pubkey, Mapping[Digest, OracleItem]] = {}
    commitments: Mapping[EventId, tuple[Pubkey, UnixTime, Commitment]] = {}
    receipt: tuple[EventId, Receipt] | None = None
    acknowledgements: Mapping[Pubkey, Acknowledgement] = {}
    reveals: Mapping[Pubkey, Reveal] = {}
    hashes: Mapping[Pubkey, VerdictHash] = {}
    verdicts: Mapping[Pubkey, tuple[EventId, Verdict]] = {}
    attestations: Mapping[EventId, tuple[Pubkey, Attestation]] = {}
    epoch_attestations: Mapping[EventId, tuple[Pubkey, EpochAttestation]] = {}
    result: tuple[EventId, Result] | None = None
    confirmations: Mapping[Pubkey, tuple[Digest, Digest]] = {}

    @property
    def attested(self) -> frozenset[Pubkey]:
        """Validators that have attested."""
        return frozenset(author for author, _ in self.attestations.values())


class Replica(msgspec.Struct, frozen=True, tag="replica"):
    """Row `replica`: our own copy of the model's state after `head`. A newcomer first listens until `hear_until`. `leap`: on its way to a later
    checkpoint; those in `passed` are not tried before then, or ever (None). `gone`: a delta of an old round is not to be had."""

    head: EventId
    state: ReplicaState = ReplicaState.BOOTING
    round: int = 0
    dataset: DatasetManifest | None = None
    checkpoint: str | None = None
    blob: BlobRef | None = None
    state_id: Digest | None = None
    root: Digest | None = None
    paths: Mapping[Digest, str] = {}
    confirming: EventId | None = None
    validation_nanonats: int | None = None
    unmeasured: bool = False
    hear_until: UnixTime = UnixTime(0)
    leap: Leap | None = None
    passed: Mapping[Digest, UnixTime | None] = {}
    gone: bool = False


class WorkerMemory(msgspec.Struct, frozen=True, tag="worker_memory"):
    """Row `worker`: the private training state (residual, moments) after the last round that used our delta; while none has (`unused`), others'.

    `in_vain` tickets in a row bought no lock, so that `pass_over` rounds are let pass before another is bought (`core.escrow.patience`).
    `tokens_per_s`: how fast the last training was; before the first, how fast it would be on `machine`, which is being measured
    since `measuring` (`core.calibration`).
    """

    state_path: str | None = None
    unused: bool = False
    in_vain: int = 0
    pass_over: int = 0
    tokens_per_s: int = 0
    machine: str = ""
    measuring: UnixTime | None = None


class Cache(msgspec.Struct, frozen=True, tag="cache"):
    """Row `cache`: the shards that we keep, with their sizes, the least recently used first."""

    held: tuple[tuple[Digest, int], ...] = ()


class Submission(msgspec.Struct, frozen=True, tag="submission"):
    """Row `work/<announcement id>`: our submission in a round."""

    announcement: EventId
    state: SubmissionState = SubmissionState.PREPARING
    salt: Digest | None = None
    ticket: Digest | None = None
    shard: Digest | None = None
    shard_path: str | None = None
    delta: BlobRef | None = None
    delta_path: str | None = None
    state_out: str | None = None
    urls: tuple[str, ...] = ()
    reason: str | None = None


class Duty(msgspec.Struct, frozen=True, tag="duty"):
    """Row `duty/<announcement id>`: our work as a validator of a round. `paths` maps digests to local files, `bad` workers to reasons.

    `heard` are the validators whose verdict hash we had when we opened our verdict: a later hash may be of a copied one.
    """

    announcement: EventId
    state: DutyState = DutyState.ANNOUNCING
    link: Digest | None = None
    salt: Digest | None = None
    paths: Mapping[Digest, str] = {}
    bad: Mapping[Pubkey, str] = {}
    heard: tuple[Pubkey, ...] = ()
    verdict: Verdict | None = None
    verdicts: tuple[EventId, ...] = ()
    reason: str | None = None


class EpochDuty(msgspec.Struct, frozen=True, tag="epoch_duty"):
    """Row `epoch/<announcement id of its first round>`: our work as a validator for the pay of an epoch of several rounds."""

    announcement: EventId
    state: EpochState = EpochState.ANNOUNCING
    verdicts: Digest | None = None
    reason: str | None = None


class Lead(msgspec.Struct, frozen=True, tag="lead"):
    """Row `lead/<announcement id>`: our work as coordinator of a round. `mirrored` are the deltas that the run's own servers have from us."""

    announcement: EventId
    state: LeadState = LeadState.COLLECTING
    paths: Mapping[Digest, str] = {}
    mirrored: tuple[Digest, ...] = ()
    levels: Mapping[Pubkey, int] = {}
    outcome: AggregateResult | None = None


class Preparation(msgspec.Struct, frozen=True, tag="preparation"):
    """Row `preparation`: a coordinator's run before its manifest is published."""

    missing: tuple[tuple[BlobRef, str], ...] = ()
    manifest: RunManifest | None = None


class Chain(msgspec.Struct, frozen=True, tag="chain"):
    """Row `height`: the best block that our Lightning node told us of."""

    height: BlockHeight


class Outbox(msgspec.Struct, frozen=True, tag="outbox"):
    """Row `outbox/<key>`: something that we say, once. `event` is set when it is signed; `body` is dropped when it is sent."""

    created_at: UnixTime
    recipient: Pubkey | None = None
    body: Body | None = None
    event: Event | None = None
    event_id: EventId | None = None
    stage: Literal["draft", "signed", "sent", "refused"] = "draft"


class Started(msgspec.Struct, frozen=True, tag="started"):
    """Row `started`: when this process booted. What happened while it was down has not been heard at once."""

    at: UnixTime


class Waiting(msgspec.Struct, frozen=True, tag="waiting"):
    """Row `waiting/<event id>`: a verified message that refers to something not seen yet, `missing`."""

    message: Message
    missing: str
    since: UnixTime


class Outstanding(msgspec.Struct, frozen=True, tag="outstanding"):
    """Row `effect/<id>`: an effect whose outcome is not committed yet."""

    effect: Effect


Row = (
    Identity
    | Run
    | Round
    | Replica
    | WorkerMemory
    | Cache
    | Submission
    | Ahead
    | Duty
    | EpochDuty
    | Lead
    | Preparation
    | Payer
    | Payee
    | Tickets
    | Income
    | Dues
    | Share
    | Split
    | OwnOffer
    | Opening
    | Openings
    | Withdrawal
    | Chain
    | LightningNode
    | Outbox
    | Started
    | Waiting
    | Heard
    | Suspicion
    | Complaint
    | Outstanding
)


class NodeState(msgspec.Struct, frozen=True):
    """All rows. A step shares every row that it did not change with the state before.

    `groups` is an index made from `rows`: the sorted keys of each group, the part of a key before its first slash.
    """

    rows: Mapping[str, Row] = {}
    groups: Mapping[str, tuple[str, ...]] = {}

    def __post_init__(self) -> None:
        if self.rows and not self.groups:
            msgspec.structs.force_setattr(self, "groups", grouped(self.rows))
