"""Payments. Names are Core Lightning's and BoltzExchange/hold's; every amount is msat."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Protocol

import msgspec
import trio

from nostrain.units import BlockHeight, Digest, Msat


class HoldState(Enum):
    """States of a hold invoice, as BoltzExchange/hold names them."""

    UNPAID = "unpaid"
    ACCEPTED = "accepted"
    PAID = "paid"
    CANCELLED = "cancelled"


class HoldUpdate(msgspec.Struct, frozen=True):
    """A hold invoice changed state. `cltv_expiry` is the smallest expiry height of its HTLCs once accepted."""

    payment_hash: Digest
    state: HoldState
    amount_msat: Msat
    cltv_expiry: BlockHeight | None = None


class PayResult(msgspec.Struct, frozen=True):
    """How a payment ended: with its preimage, or None when it failed for certain and the money is back."""

    payment_hash: Digest
    preimage: str | None


class PeerFunds(msgspec.Struct, frozen=True):
    """All open channels with one node: what they can carry now, and how many HTLCs they have left, each way."""

    node_id: str
    connected: bool
    spendable_msat: Msat
    receivable_msat: Msat
    slots_out: int
    slots_in: int


class Coin(msgspec.Struct, frozen=True):
    """A confirmed output of the node's wallet that may be spent; `outpoint` is `txid:vout`, `height` the block that it is in."""

    outpoint: str
    amount_msat: Msat
    height: BlockHeight


class NodeFunds(msgspec.Struct, frozen=True):
    """What our node says of itself. `syncing`: why `height` is old, None when it is not. `coins`: the largest, where they are asked for."""

    height: BlockHeight
    syncing: str | None
    peers: tuple[PeerFunds, ...]
    node_id: str = ""
    coins: tuple[Coin, ...] = ()


class ChannelOrder(msgspec.Struct, frozen=True):
    """A channel to open, from nothing but `coins`. `address`: `host:port` of the peer, None if it is known or connected. `feerate_perkb`: sat
    per 1000 vB, 0 for the node's own estimate.
    """

    node_id: str
    address: str | None
    capacity_sat: int
    coins: tuple[str, ...]
    feerate_perkb: int
    announce: bool


class OpenResult(msgspec.Struct, frozen=True):
    """How an opening ended: with the funding transaction, or None when it has failed for certain, for `reason`, and the coins are free."""

    txid: Digest | None
    channel_id: str = ""
    reason: str = ""


class FetchedInvoice(msgspec.Struct, frozen=True):
    """A BOLT 12 invoice (`lni1…`) that was made for us from somebody's offer, and checked against it."""

    bolt12: str
    payment_hash: Digest


class Lightning(Protocol):
    """A Lightning node with hold invoices and offers."""

    async def block_height(self) -> BlockHeight:
        """Current height. Raises Unavailable."""
        ...

    async def funds(self) -> NodeFunds:
        """Height, and what the channels can carry now; also of a node that is catching up. Raises Unavailable, ConfigError if it is not the configured one."""
        ...

    async def hold_invoice(self, payment_hash: Digest, amount_msat: Msat, min_final_cltv: int, expiry_s: int) -> str:
        """A BOLT 11 invoice on a hash that we did not draw; idempotent per hash. Raises Unavailable, LocalProtocolError if the hash is in use."""
        ...

    async def pay(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """Pay `bolt11` once: returns when the payment is settled or has failed for certain, however long that takes.

        Query-first: a second call with the same hash joins the first payment and never sends again.
        Raises OutcomeUnknown when the node was lost meanwhile; cancellation means the same.
        """
        ...

    async def settle(self, preimage: str) -> None:
        """Settle the accepted hold invoice of SHA256(preimage); idempotent. Raises Unavailable, LocalProtocolError if it is not accepted."""
        ...

    async def cancel(self, payment_hash: Digest) -> None:
        """Fail the HTLCs of a hold invoice; idempotent, and a no-op on one that does not exist. Raises Unavailable, LocalProtocolError if it is paid."""
        ...

    def holds(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[HoldUpdate]]:
        """Every hold invoice's present state, then each change."""
        ...

    async def offer(self, description: str) -> str:
        """Our BOLT 12 offer (`lno1…`) of any amount under that description; the same one every time. Raises Unavailable, LocalProtocolError if it was disabled."""
        ...

    async def fetch_invoice(self, offer: str, amount_msat: Msat) -> FetchedInvoice:
        """Ask the node behind `offer` for an invoice of exactly that amount; no money moves, and every call makes another invoice.

        Raises Unavailable when it cannot be had now, RemoteProtocolError when the offer cannot be paid, or the invoice is not what was asked for.
        """
        ...

    async def pay_fetched(self, bolt12: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """Pay a fetched invoice once: returns when the payment is settled or has failed for certain, and then it is safe to pay another in its stead.

        Query-first: a second call with the same hash joins the first payment and never sends again. One that expired unsent has failed.
        Raises OutcomeUnknown when the node was lost meanwhile; cancellation means the same.
        """
        ...

    async def open_channel(self, order: ChannelOrder) -> OpenResult:
        """Open a channel once: its coins are the key, a second call with the same ones finds what the first did, and can never open another.

        Raises Unavailable when nothing can be done or known now, OutcomeUnknown when it may have been opened; cancellation means the same.
        """
        ...
