"""Threshold locks: drawn and opened by the payer, checked and unlocked by the payee (design section 6)."""

from __future__ import annotations

import msgspec

from nostrain.core.effects.base import EffectBase
from nostrain.protocol.messages import LevelLock, OracleItem
from nostrain.units import Digest, EventId, Msat, Pubkey


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
