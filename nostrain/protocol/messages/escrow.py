"""What payer and payee say to each other in gift wraps (kinds 8680–8682, design section 6)."""

from __future__ import annotations

import msgspec

from nostrain.units import Digest, EventId, Msat, Pubkey


class LevelLock(msgspec.Struct, frozen=True):
    """One instance of the threshold lock of one level (design section 6): payment hash, E, Feldman vector, C_j by oracle index."""

    payment_hash: Digest
    ephemeral: str
    feldman: tuple[str, ...]
    shares: tuple[tuple[int, str], ...]


class Offer(msgspec.Struct, frozen=True, tag_field="type", tag="offer"):
    """Kind 8680, private: for every level the digests of c candidate locks, bound to the oracle announcements they use (by digest)."""

    run: EventId
    announcement: EventId
    round: int
    payee: Pubkey
    amounts_msat: tuple[Msat, ...]
    oracles: tuple[Digest, ...]
    instances: tuple[tuple[Digest, ...], ...]
    v: int = 1


class Choice(msgspec.Struct, frozen=True, tag_field="type", tag="choice"):
    """Kind 8681, private, by the payee: which instance of each level is to be used; the others are to be opened."""

    run: EventId
    announcement: EventId
    round: int
    offer: EventId
    chosen: tuple[int, ...]
    v: int = 1


class Openings(msgspec.Struct, frozen=True, tag_field="type", tag="openings"):
    """Kind 8681, private, by the payer: the seeds of the instances not chosen, and the locks of those chosen."""

    run: EventId
    announcement: EventId
    round: int
    offer: EventId
    seeds: tuple[tuple[Digest, ...], ...]
    locks: tuple[LevelLock, ...]
    v: int = 1


class Invoices(msgspec.Struct, frozen=True, tag_field="type", tag="invoices"):
    """Kind 8682, private, by the payee: one hold invoice (BOLT 11) a level, on the payment hashes of the chosen locks."""

    run: EventId
    announcement: EventId
    round: int
    offer: EventId
    bolt11: tuple[str, ...]
    v: int = 1
