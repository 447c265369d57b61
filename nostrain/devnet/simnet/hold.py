"""The methods of our hold plugin (`holdplugin`), which are those of BoltzExchange/hold (release 0.3.3): its names, fields, states and messages.

Where the two differ this does what ours does: a set is settled whole or not at all, and whatever does not fit gets the same failure.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from datetime import UTC, datetime
from typing import Final

import msgspec

from nostrain.devnet.simnet.invoices import CURRENCY, sign
from nostrain.devnet.simnet.methods import NodeMethods
from nostrain.devnet.simnet.nodes import Hold, HoldHtlc
from nostrain.devnet.simnet.rpc import PLUGIN_FAILURE, Json, Method, RpcFailure
from nostrain.errors import RemoteProtocolError
from nostrain.units import Digest, Msat, UnixTime, is_hex32
from nostrain.wire.bolt11 import DEFAULT_EXPIRY_S, Bolt11, parse_bolt11_untrusted

DEFAULT_MIN_CLTV: Final = 80


class HoldInvoice(msgspec.Struct):
    """`holdinvoice`."""

    payment_hash: str
    amount: int
    description: str = ""
    expiry: int = DEFAULT_EXPIRY_S
    min_final_cltv_expiry: int = DEFAULT_MIN_CLTV


class InjectHoldInvoice(msgspec.Struct):
    """`injectholdinvoice`."""

    invoice: str
    min_cltv: int | None = None


class ListHoldInvoices(msgspec.Struct):
    """`listholdinvoices`."""

    payment_hash: str | None = None
    invoice: str | None = None


class SettleHoldInvoice(msgspec.Struct):
    """`settleholdinvoice`."""

    preimage: str


class CancelHoldInvoice(msgspec.Struct):
    """`cancelholdinvoice`."""

    payment_hash: str


class HoldMethods(NodeMethods):
    """The plugin on one node."""

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "holdinvoice": Method(HoldInvoice, self.holdinvoice, plugin=True),
            "injectholdinvoice": Method(InjectHoldInvoice, self.injectholdinvoice, plugin=True),
            "listholdinvoices": Method(ListHoldInvoices, self.listholdinvoices, plugin=True),
            "settleholdinvoice": Method(SettleHoldInvoice, self.settleholdinvoice, plugin=True),
            "cancelholdinvoice": Method(CancelHoldInvoice, self.cancelholdinvoice, plugin=True),
        }

    def holdinvoice(self, asked: HoldInvoice) -> Json:
        """A new hold invoice on a given hash, with the plugin's defaults for what is not said."""
        terms = Bolt11(
            currency=CURRENCY,
            payment_hash=hex32(asked.payment_hash),
            payment_secret=secrets.token_hex(32),
            created_at=UnixTime(int(time.time())),
            amount_msat=Msat(asked.amount),
            description=asked.description,
            expiry_s=asked.expiry,
            min_final_cltv=asked.min_final_cltv_expiry,
        )
        bolt11 = sign(self.node, terms)
        self.insert(bolt11, terms)
        return {"bolt11": bolt11}

    def injectholdinvoice(self, asked: InjectHoldInvoice) -> Json:
        """Take over an invoice that this node has signed."""
        terms = parse(asked.invoice)
        if terms.payee != self.node.id:
            raise RpcFailure(PLUGIN_FAILURE, "invoice is not related to us")
        self.insert(asked.invoice, terms, asked.min_cltv)
        return {}

    def insert(self, bolt11: str, terms: Bolt11, min_cltv: int | None = None) -> None:
        """A row of the table, whose payment hash is unique. Raises RpcFailure."""
        if terms.payment_hash in self.node.holds:
            raise RpcFailure(PLUGIN_FAILURE, "UNIQUE constraint failed: invoices.payment_hash")
        self.node.holds[terms.payment_hash] = Hold(
            id=len(self.node.holds) + 1,
            payment_hash=terms.payment_hash,
            bolt11=bolt11,
            amount_msat=terms.amount_msat or Msat(0),
            payment_secret=terms.payment_secret,
            min_cltv=terms.min_final_cltv,
            explicit_min_cltv=min_cltv,
            created_at=time.time(),
        )

    def listholdinvoices(self, asked: ListHoldInvoices) -> Json:
        """Every hold invoice, or one."""
        if asked.payment_hash is not None and asked.invoice is not None:
            raise RpcFailure(PLUGIN_FAILURE, "too many parameters")
        wanted = asked.payment_hash if asked.invoice is None else parse(asked.invoice).payment_hash
        return {"holdinvoices": [listed(hold) for hold in self.node.holds.values() if wanted in (None, hold.payment_hash)]}

    def settleholdinvoice(self, asked: SettleHoldInvoice) -> Json:
        """Fulfil the HTLCs of SHA256(preimage)."""
        preimage = hex32(asked.preimage)
        hold = self.node.holds.get(Digest(hashlib.sha256(bytes.fromhex(preimage)).hexdigest()))
        if hold is None:
            raise RpcFailure(PLUGIN_FAILURE, "invoice not found")
        if hold.state != "paid":
            if hold.state != "accepted" or not hold.pending:
                raise RpcFailure(PLUGIN_FAILURE, f"no HTLCs to settle: the invoice is {hold.state}")
            hold.settle(preimage)
            self.network.check()
        return {}

    def cancelholdinvoice(self, asked: CancelHoldInvoice) -> Json:
        """Fail the HTLCs of the hash and close the invoice."""
        hold = self.node.holds.get(hex32(asked.payment_hash))
        if hold is None:
            raise RpcFailure(PLUGIN_FAILURE, "invoice not found")
        if hold.state == "paid":
            raise RpcFailure(PLUGIN_FAILURE, "could not update invoice in database: state paid is final")
        hold.cancel()
        self.network.check()
        return {}


def parse(bolt11: str) -> Bolt11:
    """Raises RpcFailure."""
    try:
        return parse_bolt11_untrusted(bolt11)
    except RemoteProtocolError as error:
        raise RpcFailure(PLUGIN_FAILURE, f"could not parse invoice: {error.reason}") from None


def hex32(text: str) -> Digest:
    """32 bytes in hex. Raises RpcFailure."""
    if not is_hex32(text.lower()):
        raise RpcFailure(PLUGIN_FAILURE, "Invalid string length" if len(text) % 2 == 0 else "Odd number of digits")
    return Digest(text.lower())


def listed(hold: Hold) -> Json:
    """A hold invoice as the plugin lists it."""
    entry: Json = {
        "id": hold.id,
        "payment_hash": hold.payment_hash,
        "preimage": hold.preimage,
        "invoice": hold.bolt11,
        "state": hold.state,
        "min_cltv": hold.explicit_min_cltv,
        "created_at": naive(hold.created_at),
        "settled_at": None if hold.settled_at is None else naive(hold.settled_at),
    }
    return {name: value for name, value in entry.items() if value is not None} | {
        "htlcs": [listed_htlc(hold, entry) for entry in hold.htlcs]
    }


def listed_htlc(hold: Hold, entry: HoldHtlc) -> Json:
    """One of its HTLCs; `channel_id` is what the plugin calls the number of the HTLC on its channel."""
    return {
        "id": entry.id,
        "invoice_id": hold.id,
        "state": entry.state,
        "scid": entry.htlc.channel.short_channel_id,
        "channel_id": entry.htlc.id,
        "msat": entry.htlc.amount_msat,
        "cltv_expiry": entry.htlc.cltv_expiry,
        "created_at": naive(entry.created_at),
    }


def naive(when: float) -> str:
    """A time as chrono's NaiveDateTime serializes: UTC, without saying so."""
    return datetime.fromtimestamp(when, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
