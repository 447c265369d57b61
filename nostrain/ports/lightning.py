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
    """What our node says of itself. `syncing`: why `height` is old, None when it is not. `coins` and `channels`: the largest, where they are
    asked for."""

    height: BlockHeight
    syncing: str | None
    peers: tuple[PeerFunds, ...]
    node_id: str = ""
    coins: tuple[Coin, ...] = ()
    channels: tuple[ChannelFunds, ...] = ()


class ChannelFunds(msgspec.Struct, frozen=True):
    """A channel that is open and connected, in which no splice waits: what can be sent through it, and taken out of it."""

    channel_id: str
    funding_txid: str
    spendable_msat: Msat


class SpliceOrder(msgspec.Struct, frozen=True):
    """Money to take out of a channel into the wallet; `funding_txid` is the channel's as it was when that was decided."""

    channel_id: str
    funding_txid: str
    amount_sat: int


class WithdrawalOrder(msgspec.Struct, frozen=True):
    """A transaction to an address, from nothing but `coins`; what is over, less the fee, comes back."""

    address: str
    amount_sat: int
    coins: tuple[str, ...]
    feerate_perkb: int


class Prepared(msgspec.Struct, frozen=True):
    """A signed transaction that is not sent; or None, when it cannot be made, for `reason`, and the coins are free."""

    txid: Digest | None
    psbt: str = ""
    reason: str = ""


class SentResult(msgspec.Struct, frozen=True):
    """The transaction that did it; or None, when it has failed for certain, for `reason`."""

    txid: Digest | None
    reason: str = ""


class ChannelOrder(msgspec.Struct, frozen=True):
    """A channel to open, from nothing but `coins`. `address`: `host:port` of the peer, None if it is known or connected. `feerate_perkb`: sat
    per 1000 vB, 0 for the node's own estimate. `ask`: only find out what became of it, and open nothing.
    """

    node_id: str
    address: str | None
    capacity_sat: int
    coins: tuple[str, ...]
    feerate_perkb: int
    announce: bool
    ask: bool = False


class OpenResult(msgspec.Struct, frozen=True):
    """How an opening ended: with the funding transaction, or None when it has failed for certain, for `reason`, and the coins are free."""

    txid: Digest | None
    channel_id: str = ""
    reason: str = ""


class FetchedInvoice(msgspec.Struct, frozen=True):
    """A BOLT 12 invoice (`lni1…`) that was made for us from somebody's offer, and checked against it."""

    bolt12: str
    payment_hash: Digest


class Income(msgspec.Struct, frozen=True):
    """A payment of an ordinary invoice of ours, or of one that was made from our offer. `index` counts them in the order in which they came."""

    index: int
    label: str
    description: str
    payment_hash: Digest
    amount_msat: Msat


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

        Raises Unavailable when it cannot be had now (a request goes by messages that may be lost, so that the next may well be answered),
        RemoteProtocolError when the offer cannot be paid, or the invoice is not what was asked for.
        """
        ...

    async def pay_fetched(self, bolt12: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """Pay a fetched invoice once: returns when the payment is settled or has failed for certain, and then it is safe to pay another in its stead.

        Query-first: a second call with the same hash joins the first payment and never sends again. One that expired unsent has failed.
        Raises OutcomeUnknown when the node was lost meanwhile; cancellation means the same.
        """
        ...

    async def income(self, after: int) -> Income | None:
        """The first payment to us whose number is above `after`, None while there is none; held ones are not among them. Raises Unavailable."""
        ...

    async def open_channel(self, order: ChannelOrder) -> OpenResult:
        """Open a channel once: its coins are the key, a second call with the same ones finds what the first did, and can never open another.

        Raises Unavailable when nothing can be done or known now, OutcomeUnknown when it may have been opened; cancellation means the same.
        """
        ...

    async def splice_out(self, order: SpliceOrder) -> SentResult:
        """Take money out of a channel into the wallet, once: a channel whose funding is another by now, or will be, has had its splice.

        Raises Unavailable while it cannot be done, say because an HTLC is in the channel; OutcomeUnknown.
        """
        ...

    async def prepare_withdrawal(self, order: WithdrawalOrder) -> Prepared:
        """A signed transaction, for whoever keeps it before it is sent. No money moves; the coins are reserved for 72 blocks.

        Raises Unavailable, also while the coins are reserved, if only by an earlier call whose reply was lost; OutcomeUnknown.
        """
        ...

    async def send_withdrawal(self, txid: Digest, psbt: str, coins: tuple[str, ...]) -> SentResult:
        """Send what was prepared; the same transaction however often, so that nothing is ever sent twice.

        Fails for certain only when another transaction has spent one of its coins. Raises Unavailable, OutcomeUnknown.
        """
        ...
