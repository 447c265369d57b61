"""Rows of the money: the payer's and the payee's side of escrows, tickets, the validators' shares of the fees."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nostrain.core.tables import PayeeState, PayerState, ShareState
from nostrain.protocol.messages import LevelLock, Payout
from nostrain.units import BlockHeight, Digest, EventId, Msat, Pubkey, UnixTime


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


class TicketPaid(msgspec.Struct, frozen=True):
    """What a worker paid for a ticket."""

    worker: Pubkey
    amount_msat: Msat


class Tickets(msgspec.Struct, frozen=True, tag="tickets"):
    """Row `tickets/<announcement id>`: who holds a ticket of a round that we sell tickets for; the first one of each worker counts.

    `paid`: payments for tickets, by hash, that were not claimed when our node told of them. `unclaimed`: those that the ledger has as that.
    """

    announcement: EventId
    sold: Mapping[Pubkey, TicketSold] = {}
    paid: Mapping[Digest, TicketPaid] = {}
    unclaimed: tuple[Digest, ...] = ()


class Income(msgspec.Struct, frozen=True, tag="income"):
    """Row `income`: the last payment to our Lightning node `node_id` that we were told of, by the node's own count."""

    node_id: str
    index: int


class Dues(msgspec.Struct, frozen=True, tag="dues"):
    """Row `dues/<validator>`: what a validator has of the fees, coordinator's side.

    `due_msat` is without what is in a payment under way. `through` is the last round in which it earned something (`announcement` its id),
    `payments` the number of payments begun.
    """

    validator: Pubkey
    through: int = 0
    announcement: EventId = EventId("")
    due_msat: Msat = Msat(0)
    paid_msat: Msat = Msat(0)
    payments: int = 0
    retry_at: UnixTime = UnixTime(0)


class Split(msgspec.Struct, frozen=True, tag="split"):
    """Row `split`: the last round whose fees the coordinator has split."""

    through: int = 0


class Share(msgspec.Struct, frozen=True, tag="share"):
    """Row `share/<validator>/<number>`: one payment of a share; the last one of each validator is kept."""

    validator: Pubkey
    amount_msat: Msat
    state: ShareState = ShareState.FETCHING
    bolt12: str | None = None
    payment_hash: Digest | None = None
    preimage: str | None = None


class OwnOffer(msgspec.Struct, frozen=True, tag="own_offer"):
    """Row `offer`: where our share of the fees may be paid to; None when our node would not make an offer."""

    offer: Payout | None
