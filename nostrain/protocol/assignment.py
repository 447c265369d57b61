"""Who trains on what: shard and windows follow from the state's identity and the worker's slot, so everyone can recompute them (design section 12).

The slot of a worker is its rank among the announcement's enrolled; the caller knows it.
"""

from __future__ import annotations

from nostrain.hashes import tagged_hash
from nostrain.units import Digest


def window_seed(state_id: Digest, slot: int) -> str:
    """The seed (hex, 32 bytes) of the windows that the worker in `slot` trains on: H(state_id ‖ slot as u32, big-endian)."""
    return tagged_hash("nostrain/windows", bytes.fromhex(state_id), slot.to_bytes(4, "big")).hex()


def shard_index(state_id: Digest, slot: int, shards: int) -> int:
    """The shard of the worker in `slot` among `shards` ≥ 1: consecutive slots take consecutive shards from a start drawn from the state."""
    start = int.from_bytes(tagged_hash("nostrain/shards", bytes.fromhex(state_id))[:8], "big")
    return (start + slot) % shards
