"""Cut-and-choose over lock instances: cheating is made expensive before any work is done (design section 6).

The payer commits to c seed-expanded instances by digest; the payee picks one; the payer shows the seeds of all the others and the
picked lock itself; the payee expands every seed and compares. A payer whose picked instance is bad got away with 1 chance in c.
The payer opens at most *one* choice per level seed: two different choices would show every seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from nostrain.crypto.lock import Instance, LevelLock, Lock, LockContext, check_lock_untrusted, expand
from nostrain.crypto.points import InvalidPoint
from nostrain.errors import RemoteProtocolError
from nostrain.hashes import tagged_hash
from nostrain.units import Digest, is_hex32

INSTANCES: Final = 8
"""c of design section 6."""


class Opening(NamedTuple):
    """What the payer shows after the choice: the lock that was chosen, and the seeds (hex) of the others in order of index."""

    lock: LevelLock
    seeds: tuple[Digest, ...]


def instance_seed(level_seed: bytes, index: int) -> bytes:
    """The seed of instance `index`; the seeds of the others say nothing about it."""
    return tagged_hash("nostrain/lock/instance-seed", level_seed, index.to_bytes(2, "big"))


def instance_digest(lock: Lock) -> Digest:
    """Binding digest of a whole instance. The lock is well-formed (`check_lock_untrusted`); otherwise ValueError."""
    shares = b"".join(index.to_bytes(2, "big") + bytes.fromhex(ciphertext) for index, ciphertext in lock.shares)
    vector = b"".join(map(bytes.fromhex, lock.feldman))
    head = bytes.fromhex(lock.payment_hash) + bytes.fromhex(lock.ephemeral) + len(lock.feldman).to_bytes(2, "big")
    return Digest(tagged_hash("nostrain/lock/instance", head, vector, shares).hex())


def expand_instance(level_seed: bytes, index: int, ctx: LockContext, threshold: int) -> Instance:
    """Instance `index` of a level, with its preimage. Raises as `lock.expand`."""
    return expand(instance_seed(level_seed, index), ctx, threshold)


def commit_instances(level_seed: bytes, ctx: LockContext, threshold: int, count: int = INSTANCES) -> tuple[Digest, ...]:
    """The digests that the payer's offer carries for one level. `level_seed` is 32 fresh bytes, journalled before the offer is sent."""
    return tuple(instance_digest(expand_instance(level_seed, index, ctx, threshold).public) for index in range(count))


def open_instances(level_seed: bytes, chosen: int, ctx: LockContext, threshold: int, count: int = INSTANCES) -> Opening:
    """The payer's answer to a choice. Raises RemoteProtocolError when the payee chose an instance that does not exist."""
    if not 0 <= chosen < count:
        raise RemoteProtocolError("choice", f"instance {chosen} of {count}", whose=ctx.payee)
    seeds = tuple(Digest(instance_seed(level_seed, index).hex()) for index in range(count) if index != chosen)
    return Opening(expand_instance(level_seed, chosen, ctx, threshold).public, seeds)


def check_openings_untrusted(
    digests: Sequence[str], chosen: int, lock: Lock, seeds: Sequence[str], ctx: LockContext, threshold: int
) -> None:
    """The payee's check of one level: the chosen lock is well-formed and the one committed to, and every other instance is what its seed gives.

    Raises RemoteProtocolError naming the first instance that differs: the payer is cheating, or speaks another protocol.
    """
    check_lock_untrusted(lock, ctx, threshold)
    if instance_digest(lock) != digests[chosen]:
        raise _fault(ctx, f"the chosen instance {chosen} is not the one committed to")
    others = [index for index in range(len(digests)) if index != chosen]
    if len(seeds) != len(others):
        raise _fault(ctx, f"{len(seeds)} seeds for {len(others)} instances")
    for index, seed in zip(others, seeds, strict=True):
        if not is_hex32(seed):
            raise _fault(ctx, f"the seed of instance {index} is not 64 lowercase hex characters")
        try:
            expected = instance_digest(expand(bytes.fromhex(seed), ctx, threshold).public)
        except InvalidPoint as error:
            raise _fault(ctx, f"instance {index}: {error}") from None
        if expected != digests[index]:
            raise _fault(ctx, f"instance {index} is not what its seed gives")


def check_distinct_untrusted(digests: Sequence[str], ctx: LockContext, count: int = INSTANCES) -> None:
    """That an offer commits to exactly `count` different instances, before one is chosen. Raises RemoteProtocolError."""
    if len(digests) != count or len(set(digests)) != count or not all(map(is_hex32, digests)):
        raise _fault(ctx, f"not {count} different digests of 64 lowercase hex characters")


def _fault(ctx: LockContext, reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"cut-and-choose of level {ctx.level}", reason, whose=ctx.payer)
