"""The threshold lock's arithmetic for both sides of an escrow: `crypto.lock` and `crypto.instances` over the terms that core names."""

from __future__ import annotations

from nostrain.core.effects import (
    CheckLocks,
    DrawLocks,
    Failed,
    LocksDrawn,
    LocksOpened,
    LockTerms,
    Ok,
    OpenLocks,
    Outcome,
    Unlock,
    Unlocked,
)
from nostrain.crypto import instances, lock
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.messages import LevelLock
from nostrain.units import Digest


def context(terms: LockTerms, level: int) -> lock.LockContext:
    """The context of one level (1-based)."""
    return lock.LockContext(
        network=terms.network,
        run=terms.run,
        announcement_id=terms.announcement,
        payer=terms.payer,
        payee=terms.payee,
        level=level,
        oracles=tuple(lock.LockOracle(index, item.oracle, item.digest, item.nonces) for index, item in terms.oracles),
        amount_msat=terms.amounts_msat[level - 1],
    )


def run(effect: DrawLocks | OpenLocks | CheckLocks | Unlock) -> Outcome:
    """Pure; a payer's cheat is `Failed` with what gave it away."""
    match effect:
        case DrawLocks():
            return LocksDrawn(tuple(drawn(effect, level) for level in range(1, len(effect.seeds) + 1)))
        case OpenLocks():
            return opened(effect)
        case CheckLocks():
            return checked(effect)
        case Unlock():
            return unlocked(effect)


def drawn(effect: DrawLocks, level: int) -> tuple[Digest, ...]:
    """The digests of one level's instances."""
    terms = effect.terms
    return instances.commit_instances(bytes.fromhex(effect.seeds[level - 1]), context(terms, level), terms.threshold, terms.instances)


def opened(effect: OpenLocks) -> Outcome:
    """The payer's answer to the choice, for every level."""
    terms = effect.terms
    seeds: list[tuple[Digest, ...]] = []
    locks: list[LevelLock] = []
    for level, (seed, chosen) in enumerate(zip(effect.seeds, effect.chosen, strict=True), start=1):
        opening = instances.open_instances(bytes.fromhex(seed), chosen, context(terms, level), terms.threshold, terms.instances)
        found = opening.lock
        seeds.append(opening.seeds)
        locks.append(LevelLock(found.payment_hash, found.ephemeral, found.feldman, found.shares))
    return LocksOpened(tuple(seeds), tuple(locks))


def checked(effect: CheckLocks) -> Outcome:
    """The payee's check of every level; one preimage may not serve two of them."""
    terms = effect.terms
    try:
        for level, (digests, chosen, offered, seeds) in enumerate(
            zip(effect.instances, effect.chosen, effect.locks, effect.seeds, strict=True), start=1
        ):
            ctx = context(terms, level)
            instances.check_distinct_untrusted(digests, ctx, terms.instances)
            instances.check_openings_untrusted(digests, chosen, offered, seeds, ctx, terms.threshold)
    except RemoteProtocolError as error:
        return Failed(str(error))
    if len({offered.payment_hash for offered in effect.locks}) != len(effect.locks):
        return Failed("two levels share a payment hash")
    return Ok()


def unlocked(effect: Unlock) -> Outcome:
    """The preimage, from whichever attestations open their share."""
    ctx = context(effect.terms, effect.level)
    shares: dict[int, int] = {}
    faults: list[str] = []
    for index, scalars in effect.scalars:
        try:
            shares[index] = lock.open_share(effect.lock, ctx, index, [int(scalar, 16) for scalar in scalars])
        except RemoteProtocolError as error:
            faults.append(str(error))
    if len(shares) < effect.terms.threshold:
        return Failed("; ".join(faults))
    try:
        return Unlocked(lock.combine(effect.lock, shares, effect.terms.threshold).hex())
    except RemoteProtocolError as error:
        return Failed(str(error))
