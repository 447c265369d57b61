"""How the protocol names and binds things: every digest that more than one participant must compute alike (docs/protocol.md, Digests)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

import msgspec

from nostrain.hashes import tagged_hash
from nostrain.protocol.manifest import BlobRef, OuterSpec
from nostrain.protocol.messages import Dispute, Verdict
from nostrain.units import Digest, EventId, Pubkey, UnixTime


def commitment_digest(author: Pubkey, announcement: EventId, salt: Digest, blob: BlobRef) -> Digest:
    """tagged_hash("nostrain/commit", author ‖ announcement id ‖ salt ‖ blob sha256 ‖ size as u64 big-endian)."""
    parts = (bytes.fromhex(author), bytes.fromhex(announcement), bytes.fromhex(salt), bytes.fromhex(blob.sha256))
    return Digest(tagged_hash("nostrain/commit", *parts, blob.size.to_bytes(8, "big")).hex())


def initial_state_id(root: Digest) -> Digest:
    """State identity of the checkpoint that a run starts from: tagged_hash("nostrain/state", root)."""
    return Digest(tagged_hash("nostrain/state", bytes.fromhex(root)).hex())


def next_state_id(state_id: Digest, digests: Sequence[Digest], caps: Sequence[int], outer: OuterSpec, committed: int) -> Digest:
    """H(state_id ‖ count ‖ delta digests ‖ c_i as u32 ‖ rule, α as u64, R as u32), big-endian: names the next state without its weights.

    The parameter of a rule that has one follows, as u32.
    """
    parts = [bytes.fromhex(state_id), len(digests).to_bytes(4, "big")]
    parts += [bytes.fromhex(digest) for digest in digests]
    parts += [cap.to_bytes(4, "big") for cap in caps]
    parts += [outer.rule.encode(), outer.alpha_ppm.to_bytes(8, "big"), committed.to_bytes(4, "big")]
    if outer.parameter:
        parts.append(outer.parameter.to_bytes(4, "big"))
    return Digest(tagged_hash("nostrain/state", *parts).hex())


def evaluation_seed(receipt: EventId, link: Digest) -> Digest:
    """SHA256(receipt id ‖ b_j): chosen by nobody, known to nobody before the receipt (decision 5)."""
    return Digest(sha256(bytes.fromhex(receipt) + bytes.fromhex(link)).hexdigest())


def chain_reaches(link: Digest, steps: int, end: Digest) -> bool:
    """Whether hashing `link` `steps` times with SHA-256 gives `end`."""
    value = bytes.fromhex(link)
    for _ in range(steps):
        value = sha256(value).digest()
    return value.hex() == end


def ranked(state_id: Digest, workers: Iterable[Pubkey]) -> tuple[Pubkey, ...]:
    """Workers by rank of H(state_id ‖ key): the position is the worker's slot, which nobody can choose."""

    def rank(worker: Pubkey) -> bytes:
        return tagged_hash("nostrain/rank", bytes.fromhex(state_id), bytes.fromhex(worker))

    return tuple(sorted(workers, key=rank))


def verdict_digest(author: Pubkey, verdict: Verdict) -> Digest:
    """tagged_hash("nostrain/verdict", author ‖ JSON of the verdict with fields in schema order)."""
    return Digest(tagged_hash("nostrain/verdict", bytes.fromhex(author), msgspec.json.encode(verdict)).hex())


def receipt_time(commit_by: UnixTime, complete: bool, created: Sequence[UnixTime]) -> UnixTime:
    """The only `created_at` that a receipt may carry (decision 5, docs/adr/0005).

    The deadline; or, when every listed worker's commitment is pinned, the latest `created_at` among them if that is earlier.
    """
    return min(commit_by, max(created)) if complete and created else commit_by


def endorsed_text(run: EventId, chain_end: Digest, chain_length: int) -> str:
    """What an oracle key endorses beside its Nostr key (`crypto.oracle.verify_endorsement`): the run and the hash chain's end and length."""
    return f"{run}/{chain_end}/{chain_length}"


def oracle_event_id(announcement: EventId, payee: Pubkey, attempt: int = 0) -> str:
    """DLC event id of one worker's thermometer in one round (design section 6)."""
    return f"nostrain/1/{announcement}/{payee}/{attempt}"


def dispute_digest(dispute: Dispute) -> Digest:
    """What a dispute claims, whoever claims it: tagged_hash("nostrain/dispute", kind ‖ accused ‖ ids of the evidence, sorted)."""
    ids = b"".join(bytes.fromhex(event_id) for event_id in dispute.evidence)
    return Digest(tagged_hash("nostrain/dispute", dispute.kind.encode(), bytes.fromhex(dispute.accused), ids).hex())


def epoch_event_id(announcement: EventId, payee: Pubkey) -> str:
    """DLC event id of one worker's thermometer for the pay of a whole epoch, in the round that opens it (docs/adr/0030)."""
    return f"nostrain/1/{announcement}/{payee}/epoch"
