"""Tickets, invoices and payments, and how they end."""

from __future__ import annotations

import msgspec

from nostrain.core.effects.base import EffectBase
from nostrain.protocol.messages import Payout
from nostrain.units import Digest, EventId, Msat, Pubkey


class HoldInvoice(EffectBase, frozen=True, tag="hold_invoice"):
    """Make a hold invoice on a hash that the payer drew."""

    payment_hash: Digest
    amount_msat: Msat
    min_final_cltv: int
    expiry_s: int


class BuyTicket(EffectBase, frozen=True, tag="buy_ticket"):
    """Buy the ticket of a round for uploads of `size` bytes, for at most `ceiling_msat`; what was paid before is never paid again."""

    server: str
    run: EventId
    announcement: EventId
    size: int
    ceiling_msat: Msat


class FindTicket(EffectBase, frozen=True, tag="find_ticket"):
    """What we paid for the ticket of a round in which we do not take part any more; ends when that will not change."""

    run: EventId
    round: int
    announcement: EventId
    party: Pubkey


class Pay(EffectBase, frozen=True, tag="pay"):
    """Pay a hold invoice once; ends when it is settled or has failed for certain."""

    bolt11: str
    payment_hash: Digest
    amount_msat: Msat


class Settle(EffectBase, frozen=True, tag="settle"):
    """Settle an accepted hold invoice."""

    preimage: str


class Cancel(EffectBase, frozen=True, tag="cancel"):
    """Fail the HTLCs of a hold invoice."""

    payment_hash: Digest


class MakeOffer(EffectBase, frozen=True, tag="make_offer"):
    """Our own BOLT 12 offer of any amount."""

    description: str


class FetchInvoice(EffectBase, frozen=True, tag="fetch_invoice"):
    """Ask the node behind a BOLT 12 offer for an invoice of exactly that amount. No money moves."""

    offer: str
    amount_msat: Msat


class PayInvoice(EffectBase, frozen=True, tag="pay_invoice"):
    """Pay a fetched invoice once; ends when it is paid or has failed for certain, so that another one may be paid in its stead."""

    bolt12: str
    payment_hash: Digest
    amount_msat: Msat


class OpenChannel(EffectBase, frozen=True, tag="open_channel"):
    """Open a channel once, from nothing but `coins`; ends when it is opened, or has failed for certain and the coins are free. `ask`: nothing is
    opened; it ends with what became of an earlier one with these coins.
    """

    node_id: str
    address: str
    capacity_msat: Msat
    coins: tuple[str, ...]
    feerate_perkb: int
    announce: bool
    ask: bool = False


class SpliceOut(EffectBase, frozen=True, tag="splice_out"):
    """Take money out of a channel into our wallet, once; `funding_txid` is the channel's as it was when that was decided."""

    channel_id: str
    funding_txid: str
    amount_msat: Msat


class PrepareWithdrawal(EffectBase, frozen=True, tag="prepare_withdrawal"):
    """Make and sign a transaction from nothing but `coins`. No money moves."""

    address: str
    amount_msat: Msat
    coins: tuple[str, ...]
    feerate_perkb: int


class SendWithdrawal(EffectBase, frozen=True, tag="send_withdrawal"):
    """Send the transaction that was signed, the very same however often; ends when it is sent, or another has spent its coins."""

    txid: Digest
    psbt: str
    coins: tuple[str, ...]


class Invoiced(msgspec.Struct, frozen=True, tag="invoiced"):
    """A BOLT 11 hold invoice."""

    bolt11: str


class OfferMade(msgspec.Struct, frozen=True, tag="offer_made"):
    """Our offer."""

    offer: Payout


class InvoiceFetched(msgspec.Struct, frozen=True, tag="invoice_fetched"):
    """A BOLT 12 invoice that is what was asked for."""

    bolt12: str
    payment_hash: Digest


class TicketBought(msgspec.Struct, frozen=True, tag="ticket_bought"):
    """The ticket is ours; `token` names it, `payment_hash` what was paid for it."""

    token: Digest
    payment_hash: Digest


class TicketFound(msgspec.Struct, frozen=True, tag="ticket_found"):
    """Paid by the payment of that hash, or None: nothing was paid, or ever will be. `claimed`: we got the ticket for it."""

    payment_hash: Digest | None
    amount_msat: Msat
    claimed: bool


class PayEnded(msgspec.Struct, frozen=True, tag="pay_ended"):
    """Settled with its preimage, or None: failed for certain."""

    preimage: str | None


class ChannelOpened(msgspec.Struct, frozen=True, tag="channel_opened"):
    """The funding transaction is sent."""

    txid: Digest
    channel_id: str


class WithdrawalPrepared(msgspec.Struct, frozen=True, tag="withdrawal_prepared"):
    """Signed, not sent."""

    txid: Digest
    psbt: str


class TransactionSent(msgspec.Struct, frozen=True, tag="transaction_sent"):
    """It waits for a block, or is in one."""

    txid: Digest
