"""The parameters of Core Lightning's methods: names and order as in its `doc/schemas` (release 26.06)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

WEEK_S: Final = 604_800
DEFAULT_CLTV_FINAL: Final = 18


class Nothing(msgspec.Struct):
    """No parameters."""


class GetLog(msgspec.Struct):
    """As in the schema."""

    level: str = "info"


class ListPeerChannels(msgspec.Struct):
    """As in the schema."""

    id: str | None = None
    short_channel_id: str | None = None


class ListFunds(msgspec.Struct):
    """As in the schema."""

    spent: bool = False


class ListTransactions(msgspec.Struct):
    """No parameters."""


class NewAddr(msgspec.Struct):
    """As in the schema."""

    addresstype: str = "p2tr"


class PeerId(msgspec.Struct):
    """`fundchannel_cancel`."""

    id: str


class SpliceOut(msgspec.Struct):
    """As in the schema."""

    channel: str
    amount: int | str
    destination: str = "wallet"
    force_feerate: bool = False


class TxPrepare(msgspec.Struct):
    """As in the schema."""

    outputs: list[dict[str, str | int]]
    feerate: str | int | None = None
    minconf: int | None = None
    utxos: list[str] | None = None


class TxId(msgspec.Struct):
    """`txdiscard`."""

    txid: str


class SignPsbt(msgspec.Struct):
    """As in the schema."""

    psbt: str
    signonly: list[int] | None = None


class ReserveInputs(msgspec.Struct):
    """As in the schema."""

    psbt: str
    exclusive: bool = True
    reserve: int = 72


class SendPsbt(msgspec.Struct):
    """As in the schema."""

    psbt: str
    reserve: int | None = None


class Connect(msgspec.Struct):
    """As in the schema."""

    id: str
    host: str | None = None
    port: int | None = None


class FundChannel(msgspec.Struct):
    """As in the schema, without pushing, leases, channel types and what the peer is asked to keep."""

    id: str
    amount: int | str
    feerate: str | int | None = None
    announce: bool = True
    minconf: int | None = None
    utxos: list[str] | None = None


class WaitBlockHeight(msgspec.Struct):
    """As in the schema."""

    blockheight: int
    timeout: int = 60


class MakeInvoice(msgspec.Struct):
    """As in the schema."""

    amount_msat: int | str
    label: str | int
    description: str
    expiry: int = WEEK_S
    fallbacks: list[str] | None = None
    preimage: str | None = None
    exposeprivatechannels: Any = None
    cltv: int = DEFAULT_CLTV_FINAL
    deschashonly: bool = False


class ListInvoices(msgspec.Struct):
    """As in the schema."""

    label: str | int | None = None
    invstring: str | None = None
    payment_hash: str | None = None
    offer_id: str | None = None


class WaitAnyInvoice(msgspec.Struct):
    """As in the schema."""

    lastpay_index: int = 0
    timeout: int | None = None


class DelInvoice(msgspec.Struct):
    """As in the schema."""

    label: str | int
    status: str
    desconly: bool = False


class String(msgspec.Struct):
    """`decode`."""

    string: str


class InvString(msgspec.Struct):
    """`signinvoice`."""

    invstring: str


class RouteHop(msgspec.Struct):
    """One element of a route; members that lightningd ignores are ignored."""

    id: str
    channel: str
    amount_msat: int
    delay: int


class SendPay(msgspec.Struct):
    """As in the schema."""

    route: list[RouteHop]
    payment_hash: str
    label: str | None = None
    amount_msat: int | None = None
    bolt11: str | None = None
    payment_secret: str | None = None
    partid: int = 0
    localinvreqid: str | None = None
    groupid: int | None = None
    payment_metadata: str | None = None
    description: str | None = None


class WaitSendPay(msgspec.Struct):
    """As in the schema."""

    payment_hash: str
    timeout: int | None = None
    partid: int = 0
    groupid: int | None = None


class Wait(msgspec.Struct):
    """As in the schema."""

    subsystem: str
    indexname: str
    nextvalue: int


class ListSendPays(msgspec.Struct):
    """As in the schema."""

    bolt11: str | None = None
    payment_hash: str | None = None
    status: str | None = None


class XPay(msgspec.Struct):
    """As in the schema."""

    invstring: str
    amount_msat: int | None = None
    maxfee: int | None = None
    layers: list[str] | None = None
    retry_for: int = 60
    partial_msat: int | None = None
    maxdelay: int = 2016
    payer_note: str | None = None
    label: str | None = None


class MakeOffer(msgspec.Struct):
    """`offer`; as in the schema, without what is for fiat prices and recurrence."""

    amount: int | str
    description: str | None = None
    issuer: str | None = None
    label: str | None = None
    quantity_max: int | None = None
    absolute_expiry: int | None = None
    single_use: bool = False


class ListOffers(msgspec.Struct):
    """`listoffers`."""

    offer_id: str | None = None
    active_only: bool = False


class FetchInvoice(msgspec.Struct):
    """`fetchinvoice`; as in the schema, without recurrence."""

    offer: str
    amount_msat: int | None = None
    quantity: int | None = None
    timeout: float = 60
    payer_note: str | None = None
    payer_metadata: str | None = None
    bip353: str | None = None
