"""What we read of the replies of Core Lightning (`doc/schemas`) and of BoltzExchange/hold; unknown fields are ignored.

Amounts are plain numbers of msat, as lightningd writes them since 23.08.
"""

from __future__ import annotations

import msgspec

from nostrain.units import BlockHeight, Digest, Msat


class Anything(msgspec.Struct, frozen=True):
    """A reply of which nothing is needed."""


class GetInfo(msgspec.Struct, frozen=True):
    """`getinfo`. The warnings are there while the node, or its bitcoind, catches up: then `blockheight` is old."""

    id: str
    blockheight: BlockHeight
    network: str
    version: str
    alias: str = ""
    warning_bitcoind_sync: str | None = None
    warning_lightningd_sync: str | None = None


class GetLog(msgspec.Struct, frozen=True):
    """`getlog`: when lightningd started, in seconds with decimals."""

    created_at: str


class BlockHeightReply(msgspec.Struct, frozen=True):
    """`waitblockheight`."""

    blockheight: BlockHeight


class ChannelHtlc(msgspec.Struct, frozen=True):
    """An HTLC in `listpeerchannels`; `direction` is `in` or `out`."""

    direction: str
    amount_msat: Msat
    payment_hash: Digest
    expiry: BlockHeight | None = None


class Inflight(msgspec.Struct, frozen=True):
    """A splice of a channel that waits to be confirmed."""

    funding_txid: Digest


class PeerChannel(msgspec.Struct, frozen=True):
    """A channel in `listpeerchannels`; one that is just being opened has neither id nor balances."""

    peer_id: str
    peer_connected: bool
    state: str
    short_channel_id: str | None = None
    direction: int = 0
    to_us_msat: Msat = Msat(0)
    spendable_msat: Msat = Msat(0)
    receivable_msat: Msat = Msat(0)
    max_accepted_htlcs: int = 0
    htlcs: tuple[ChannelHtlc, ...] = ()
    channel_id: str = ""
    funding_txid: str = ""
    inflight: tuple[Inflight, ...] = ()


class ListPeerChannels(msgspec.Struct, frozen=True):
    """`listpeerchannels`."""

    channels: tuple[PeerChannel, ...]


class WalletOutput(msgspec.Struct, frozen=True):
    """A coin in `listfunds`; `status` is `unconfirmed`, `confirmed`, `spent` or `immature`."""

    txid: Digest
    output: int
    amount_msat: Msat
    status: str
    reserved: bool
    blockheight: BlockHeight | None = None

    @property
    def outpoint(self) -> str:
        """`txid:vout`."""
        return f"{self.txid}:{self.output}"


class ListFunds(msgspec.Struct, frozen=True):
    """`listfunds`."""

    outputs: tuple[WalletOutput, ...]


class WalletInput(msgspec.Struct, frozen=True):
    """What a transaction in `listtransactions` spends."""

    txid: Digest
    index: int


class WalletTransaction(msgspec.Struct, frozen=True):
    """One in `listtransactions`; `blockheight` is 0 until it is confirmed."""

    hash: Digest
    blockheight: BlockHeight
    inputs: tuple[WalletInput, ...]


class ListTransactions(msgspec.Struct, frozen=True):
    """`listtransactions`."""

    transactions: tuple[WalletTransaction, ...]


class Funded(msgspec.Struct, frozen=True):
    """`fundchannel`."""

    txid: Digest
    channel_id: str


class Sent(msgspec.Struct, frozen=True):
    """`spliceout` and `sendpsbt`."""

    txid: Digest


class TxPrepared(msgspec.Struct, frozen=True):
    """`txprepare`."""

    txid: Digest
    psbt: str


class SignedPsbt(msgspec.Struct, frozen=True):
    """`signpsbt`."""

    signed_psbt: str


class SendPay(msgspec.Struct, frozen=True):
    """One part of a payment, in `listsendpays`, `sendpay` and `waitsendpay`; `status` is `pending`, `complete` or `failed`."""

    payment_hash: Digest
    status: str
    created_at: int
    groupid: int = 0
    partid: int = 0
    payment_preimage: str | None = None


class ListSendPays(msgspec.Struct, frozen=True):
    """`listsendpays`."""

    payments: tuple[SendPay, ...]


class SendPaysWaited(msgspec.Struct, frozen=True):
    """`wait` for the subsystem `sendpays`: how many parts were ever created."""

    created: int


class InvoiceReply(msgspec.Struct, frozen=True):
    """`invoice`, and an entry of `listinvoices`."""

    payment_hash: Digest
    bolt11: str | None = None
    amount_msat: Msat | None = None
    status: str = "unpaid"


class PaidInvoice(msgspec.Struct, frozen=True):
    """`waitanyinvoice`."""

    label: str
    payment_hash: Digest
    pay_index: int
    amount_received_msat: Msat
    description: str | None = None


class ListInvoices(msgspec.Struct, frozen=True):
    """`listinvoices`."""

    invoices: tuple[InvoiceReply, ...]


class Signed(msgspec.Struct, frozen=True):
    """`signinvoice`."""

    bolt11: str


class HeldHtlc(msgspec.Struct, frozen=True):
    """An HTLC in `listholdinvoices`."""

    state: str
    msat: Msat
    cltv_expiry: BlockHeight | None = None


class HeldInvoice(msgspec.Struct, frozen=True):
    """An entry of `listholdinvoices`; `state` is one of `ports.lightning.HoldState`."""

    payment_hash: Digest
    invoice: str
    state: str
    htlcs: tuple[HeldHtlc, ...] = ()


class ListHoldInvoices(msgspec.Struct, frozen=True):
    """`listholdinvoices`."""

    holdinvoices: tuple[HeldInvoice, ...]


class OfferReply(msgspec.Struct, frozen=True):
    """`offer`, and an entry of `listoffers`."""

    bolt12: str
    active: bool
    label: str | None = None


class ListOffers(msgspec.Struct, frozen=True):
    """`listoffers`."""

    offers: tuple[OfferReply, ...]


class FetchInvoice(msgspec.Struct, frozen=True):
    """`fetchinvoice`."""

    invoice: str
