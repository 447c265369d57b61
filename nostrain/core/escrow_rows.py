"""Rows of the escrows: the payer's side and the payee's."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nostrain.core.tables import PayeeState, PayerState
from nostrain.protocol.messages import LevelLock
from nostrain.units import BlockHeight, Digest, EventId, Msat, Pubkey


class PayerLevel(msgspec.Struct, frozen=True):
    """One level as its payer sees it."""

    state: PayerState
    lock: LevelLock | None = None
    bolt11: str | None = None
    preimage: str | None = None


class Payer(msgspec.Struct, frozen=True, tag="payer"):
    """Row `payer/<announcement id>/<payee>`: the escrow of one worker in one round, payer's side. `seeds` are secret."""

    announcement: EventId
    payee: Pubkey
    seeds: tuple[Digest, ...] = ()
    oracles: tuple[Digest, ...] = ()
    offer: EventId | None = None
    chosen: tuple[int, ...] = ()
    levels: tuple[PayerLevel, ...] = ()


class PayeeLevel(msgspec.Struct, frozen=True):
    """One level as its payee sees it. `tried`: how many attestations were last taken to open it."""

    state: PayeeState
    lock: LevelLock | None = None
    bolt11: str | None = None
    cltv_expiry: BlockHeight | None = None
    tried: int = 0
    preimage: str | None = None


class Payee(msgspec.Struct, frozen=True, tag="payee"):
    """Row `payee/<announcement id>`: the escrow of our own work in one round, payee's side."""

    announcement: EventId
    payee: Pubkey
    offer_id: EventId | None = None
    instances: tuple[tuple[Digest, ...], ...] = ()
    amounts_msat: tuple[Msat, ...] = ()
    oracles: tuple[Digest, ...] = ()
    chosen: tuple[int, ...] = ()
    levels: tuple[PayeeLevel, ...] = ()
    refused: str | None = None


class TicketSold(msgspec.Struct, frozen=True):
    """A ticket that was paid for and claimed."""

    size: int
    token: Digest
    payment_hash: Digest


class Tickets(msgspec.Struct, frozen=True, tag="tickets"):
    """Row `tickets/<announcement id>`: who holds a ticket of a round that we sell tickets for; the first one of each worker counts."""

    announcement: EventId
    sold: Mapping[Pubkey, TicketSold] = {}
