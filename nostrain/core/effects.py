"""What machines ask the shell to do, and how that can end.

An effect is listed in the state until its outcome is committed, and runs only while listed (design section 9). `id` names it: asking
twice for the same thing is asking once. `RETRY` says what a restart may do with one whose outcome is not known.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

import msgspec

from nostrain.protocol.event import Event
from nostrain.protocol.jobs import Job, JobResult
from nostrain.protocol.manifest import BlobRef, DatasetManifest
from nostrain.protocol.messages import AttestationItem, Body, LevelLock, Message, OracleItem
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime


class EffectBase(msgspec.Struct, frozen=True):
    """`owner` is the row key of the machine that asked; `name` is unique within it."""

    owner: str
    name: str

    @property
    def id(self) -> str:
        """Identity of the effect: owner#name."""
        return f"{self.owner}#{self.name}"


class Sign(EffectBase, frozen=True, tag="sign"):
    """Encode and sign a body. Deterministic; nothing leaves the process."""

    body: Body
    created_at: UnixTime


class Send(EffectBase, frozen=True, tag="send"):
    """Publish the signed event, or mail it when it has a recipient."""

    event: Event
    recipient: Pubkey | None


class Draw(EffectBase, frozen=True, tag="draw"):
    """`size` bytes of entropy, committed before they are used."""

    size: int


class Fetch(EffectBase, frozen=True, tag="fetch"):
    """Bring a blob to this machine. With `must`, wrong bytes are only one source's fault: other sources are asked until one is right."""

    blob: BlobRef
    whose: str = ""
    must: bool = False


class FetchDataset(EffectBase, frozen=True, tag="fetch_dataset"):
    """Bring and read a dataset manifest."""

    blob: BlobRef


class Upload(EffectBase, frozen=True, tag="upload"):
    """Store a local file on `servers`, the run's, and on our own."""

    blob: BlobRef
    path: str
    servers: tuple[str, ...]


class Compute(EffectBase, frozen=True, tag="compute"):
    """Run a job in the engine process."""

    job: Job


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


class LockTerms(msgspec.Struct, frozen=True):
    """Everything public that the locks of one payee in one round are bound to (design section 6, `context`).

    `oracles` pairs each index j (1-based position among the announcement's validators) with j's announcement for this payee.
    """

    network: str
    run: EventId
    announcement: EventId
    payer: Pubkey
    payee: Pubkey
    amounts_msat: tuple[Msat, ...]
    oracles: tuple[tuple[int, OracleItem], ...]
    threshold: int
    instances: int


class DrawLocks(EffectBase, frozen=True, tag="draw_locks"):
    """Expand the instances of every level from its seed (hex32)."""

    terms: LockTerms
    seeds: tuple[Digest, ...]


class OpenLocks(EffectBase, frozen=True, tag="open_locks"):
    """Answer a choice: seeds of the instances not chosen, locks of those chosen."""

    terms: LockTerms
    seeds: tuple[Digest, ...]
    chosen: tuple[int, ...]


class CheckLocks(EffectBase, frozen=True, tag="check_locks"):
    """Recompute what was opened and check what was not."""

    terms: LockTerms
    instances: tuple[tuple[Digest, ...], ...]
    chosen: tuple[int, ...]
    seeds: tuple[tuple[Digest, ...], ...]
    locks: tuple[LevelLock, ...]


class Unlock(EffectBase, frozen=True, tag="unlock"):
    """Open level `level` (1-based) with attestation scalars: (oracle index j, s_{j,1} … s_{j,level})."""

    terms: LockTerms
    level: int
    lock: LevelLock
    scalars: tuple[tuple[int, tuple[str, ...]], ...]


class HoldInvoice(EffectBase, frozen=True, tag="hold_invoice"):
    """Make a hold invoice on a hash that the payer drew."""

    payment_hash: Digest
    amount_msat: Msat
    min_final_cltv: int
    expiry_s: int


class BuyTicket(EffectBase, frozen=True, tag="buy_ticket"):
    """Buy the ticket of a round for uploads of `size` bytes, for at most `ceiling_msat`; what was paid before is never paid again."""

    server: str
    run: EventId
    announcement: EventId
    size: int
    ceiling_msat: Msat


class Pay(EffectBase, frozen=True, tag="pay"):
    """Pay a hold invoice once; ends when it is settled or has failed for certain."""

    bolt11: str
    payment_hash: Digest
    amount_msat: Msat


class Settle(EffectBase, frozen=True, tag="settle"):
    """Settle an accepted hold invoice."""

    preimage: str


class Cancel(EffectBase, frozen=True, tag="cancel"):
    """Fail the HTLCs of a hold invoice."""

    payment_hash: Digest


Effect = (
    Sign
    | Send
    | Draw
    | Fetch
    | FetchDataset
    | Upload
    | Compute
    | Credentials
    | ChainLink
    | OracleAnnounce
    | OracleAttest
    | DrawLocks
    | OpenLocks
    | CheckLocks
    | Unlock
    | HoldInvoice
    | BuyTicket
    | Pay
    | Settle
    | Cancel
)


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The other side broke the protocol, or refused for good; it will not get better by trying again."""

    reason: str


class Ok(msgspec.Struct, frozen=True, tag="ok"):
    """Done, with nothing to tell."""


class Signed(msgspec.Struct, frozen=True, tag="signed"):
    """The final bytes, and the message as everybody else will read it."""

    event: Event
    message: Message


class Drawn(msgspec.Struct, frozen=True, tag="drawn"):
    """Entropy, hex."""

    data: str


class Fetched(msgspec.Struct, frozen=True, tag="fetched"):
    """The verified blob's local path."""

    path: str


class DatasetRead(msgspec.Struct, frozen=True, tag="dataset_read"):
    """The dataset manifest."""

    dataset: DatasetManifest


class Uploaded(msgspec.Struct, frozen=True, tag="uploaded"):
    """Where the blob is served."""

    urls: tuple[str, ...]


class Computed(msgspec.Struct, frozen=True, tag="computed"):
    """The job's result."""

    result: JobResult


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


class LocksDrawn(msgspec.Struct, frozen=True, tag="locks_drawn"):
    """Per level, the digests of its instances."""

    instances: tuple[tuple[Digest, ...], ...]


class LocksOpened(msgspec.Struct, frozen=True, tag="locks_opened"):
    """Per level, the seeds of the others and the chosen lock."""

    seeds: tuple[tuple[Digest, ...], ...]
    locks: tuple[LevelLock, ...]


class Unlocked(msgspec.Struct, frozen=True, tag="unlocked"):
    """The preimage of the level's payment hash."""

    preimage: str


class Invoiced(msgspec.Struct, frozen=True, tag="invoiced"):
    """A BOLT 11 hold invoice."""

    bolt11: str


class TicketBought(msgspec.Struct, frozen=True, tag="ticket_bought"):
    """The ticket is ours; `token` names it."""

    token: Digest


class PayEnded(msgspec.Struct, frozen=True, tag="pay_ended"):
    """Settled with its preimage, or None: failed for certain."""

    preimage: str | None


Outcome = (
    Failed
    | Ok
    | Signed
    | Drawn
    | Fetched
    | DatasetRead
    | Uploaded
    | Computed
    | CredentialsRead
    | LinkRead
    | OracleAnnounced
    | OracleAttested
    | LocksDrawn
    | LocksOpened
    | Unlocked
    | Invoiced
    | TicketBought
    | PayEnded
)


class Retry(Enum):
    """What a restart may do with an effect whose outcome it does not know."""

    IDEMPOTENT = "do it again: the second time changes nothing"
    QUERY_FIRST = "ask the other side what became of it; only then decide"
    RECOMPUTE = "compute it again: nothing had left the process"


RETRY: Final[dict[type[EffectBase], Retry]] = {
    Sign: Retry.RECOMPUTE,
    Send: Retry.IDEMPOTENT,
    Draw: Retry.RECOMPUTE,
    Fetch: Retry.IDEMPOTENT,
    FetchDataset: Retry.IDEMPOTENT,
    Upload: Retry.IDEMPOTENT,
    Compute: Retry.RECOMPUTE,
    Credentials: Retry.RECOMPUTE,
    ChainLink: Retry.RECOMPUTE,
    OracleAnnounce: Retry.IDEMPOTENT,
    OracleAttest: Retry.IDEMPOTENT,
    DrawLocks: Retry.RECOMPUTE,
    OpenLocks: Retry.RECOMPUTE,
    CheckLocks: Retry.RECOMPUTE,
    Unlock: Retry.RECOMPUTE,
    HoldInvoice: Retry.IDEMPOTENT,
    BuyTicket: Retry.QUERY_FIRST,
    Pay: Retry.QUERY_FIRST,
    Settle: Retry.IDEMPOTENT,
    Cancel: Retry.IDEMPOTENT,
}
