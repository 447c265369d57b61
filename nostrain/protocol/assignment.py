"""Who trains on what: shard and windows follow from the state's identity and the worker's slot, so everyone can recompute them (design section 12).

The slot of a worker is its rank among the announcement's enrolled; the caller knows it.
"""

from __future__ import annotations

from nostrain.hashes import tagged_hash
from nostrain.units import Digest


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
