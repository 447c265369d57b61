"""Who trains on what in a round: everyone can recompute it, and nobody could choose it (design section 12).

Usually shard and windows follow from the identity of the state that the round opens on and from the worker's slot, its rank among the announced.
In a delayed run (docs/adr/0048) training begins before there is an announcement: they follow from the state that is trained from, the number
of the round, and the worker's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nostrain.hashes import tagged_hash
from nostrain.protocol.digests import ranked
from nostrain.units import Digest, Pubkey


@dataclass(frozen=True)
class Assigned:
    """The index of a worker's shard, and the seed (hex, 32 bytes) of its windows on it."""

    shard: int
    seed: str


@dataclass(frozen=True)
class RoundTerms:
    """What the work of a round follows from. `attempt`: how many rounds in a row used no work on its state. `base`: in a delayed run the state that is trained from; None in any other."""

    number: int
    state_id: Digest
    workers: Sequence[Pubkey]
    attempt: int = 0
    base: Digest | None = None


def assigned(terms: RoundTerms, worker: Pubkey, shards: int) -> Assigned:
    """What a listed worker trains on, of a dataset with `shards` ≥ 1."""
    if terms.base is not None:
        return assigned_ahead(terms.base, terms.number, worker, shards)
    return assigned_slot(terms.state_id, terms.attempt, ranked(terms.state_id, terms.workers).index(worker), shards)


def assigned_slot(state_id: Digest, attempt: int, slot: int, shards: int) -> Assigned:
    """What the worker in `slot` trains on, on a state that `attempt` rounds in a row have used no work on."""
    basis = assignment(state_id, attempt)
    return Assigned(shard_index(basis, slot, shards), window_seed(basis, slot))


def assigned_ahead(base: Digest, number: int, worker: Pubkey, shards: int) -> Assigned:
    """What a worker trains on for round `number` of a delayed run, from state `base`, whether that round is announced already or not."""
    seed = tagged_hash("nostrain/ahead", bytes.fromhex(base), number.to_bytes(4, "big"), bytes.fromhex(worker))
    shard = int.from_bytes(tagged_hash("nostrain/shards", seed)[:8], "big") % shards
    return Assigned(shard, tagged_hash("nostrain/windows", seed).hex())


def assignment(state_id: Digest, attempt: int) -> Digest:
    """What windows and shards follow from: the state's identity, and how many rounds in a row have used no work since it was reached.

    Training repeats exactly. A round on the same state as one that came to nothing must not ask for the same deltas, which everybody has seen.
    """
    return state_id if attempt == 0 else Digest(tagged_hash("nostrain/attempt", bytes.fromhex(state_id), attempt.to_bytes(4, "big")).hex())


def window_seed(basis: Digest, slot: int) -> str:
    """The seed (hex, 32 bytes) of the windows that the worker in `slot` trains on: H(assignment ‖ slot as u32, big-endian)."""
    return tagged_hash("nostrain/windows", bytes.fromhex(basis), slot.to_bytes(4, "big")).hex()


def shard_index(basis: Digest, slot: int, shards: int) -> int:
    """The shard of the worker in `slot` among `shards` ≥ 1: consecutive slots take consecutive shards from a start drawn from the assignment."""
    start = int.from_bytes(tagged_hash("nostrain/shards", bytes.fromhex(basis))[:8], "big")
    return (start + slot) % shards
