"""The RPC methods, with the names, fields, states and messages of BoltzExchange/hold; what is ours beside them is optional.

`holdinvoice` takes a description, an expiry and a final CLTV, which that plugin offers over gRPC only.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from nostrain.holdplugin.bolt11 import unsigned_invoice
from nostrain.holdplugin.invoices import Htlc, Invoice, Refused, State
from nostrain.holdplugin.keeper import Keeper
from nostrain.holdplugin.store import Row, Store
from nostrain.units import BlockHeight, Digest, Msat, UnixTime, is_hex32

DEFAULT_MIN_CLTV: Final = 80
DEFAULT_EXPIRY_S: Final = 3_600
MAX_MSAT: Final = 21_000_000 * 10**11
MAX_BLOCKS: Final = 2_016
"""lightningd sends no HTLC that expires later."""
MAX_EXPIRY_S: Final = 10 * 366 * 86_400

Json = dict[str, Any]


class Rpc(Protocol):
    """lightningd's own methods, as pyln-client calls them. Raises Refused with lightningd's message, OSError when it is not there."""

    def call(self, method: str, params: Json) -> Json:
        """The result of `method`."""
        ...


class Methods:
    """Of the process that has them. Each raises Refused: nothing has changed, and its text is for the caller."""

    def __init__(self, store: Store, keeper: Keeper, rpc: Rpc, network: str) -> None:
        self._store, self._keeper, self._rpc, self._network = store, keeper, rpc, network

    def holdinvoice(
        self,
        payment_hash: object,
        amount: object,
        description: object = None,
        expiry: object = None,
        min_final_cltv_expiry: object = None,
        description_hash: object = None,
    ) -> Json:
        """A new hold invoice on a hash whose preimage we need not know, signed by lightningd."""
        if description is not None and description_hash is not None:
            raise Refused("description and description_hash: one of them")
        hashed, amount_msat = digest(payment_hash), Msat(number(amount, "amount", 1, MAX_MSAT))
        try:
            unsigned = unsigned_invoice(
                self._network,
                hashed,
                secrets.token_bytes(32),
                amount_msat,
                UnixTime(int(time.time())),
                description=None if description is None else str(description),
                description_hash=None if description_hash is None else digest(description_hash),
                expiry_s=number(expiry or DEFAULT_EXPIRY_S, "expiry", 1, MAX_EXPIRY_S),
                min_final_cltv=number(min_final_cltv_expiry or DEFAULT_MIN_CLTV, "min_final_cltv_expiry", 1, MAX_BLOCKS),
            )
        except ValueError as error:
            raise Refused(str(error)) from error
        bolt11 = str(self._rpc.call("signinvoice", {"invstring": unsigned})["bolt11"])
        self._take(bolt11, None)
        return {"bolt11": bolt11}

    def injectholdinvoice(self, invoice: object, min_cltv: object = None) -> Json:
        """Take over an invoice that this node has signed. `min_cltv` counts instead of what it says, if given."""
        self._take(str(invoice), None if min_cltv is None else number(min_cltv, "min_cltv", 1, MAX_BLOCKS))
        return {}

    def listholdinvoices(self, payment_hash: object = None, invoice: object = None) -> Json:
        """Every hold invoice, or one."""
        if payment_hash is not None and invoice is not None:
            raise Refused("too many parameters")
        wanted = None if payment_hash is None else digest(payment_hash)
        if invoice is not None:
            wanted = digest(self._decode(str(invoice))["payment_hash"])
        return {"holdinvoices": [listed(row) for row in self._store.rows(wanted)]}

    def settleholdinvoice(self, preimage: object) -> Json:
        """Claim the HTLCs of SHA256(preimage)."""
        known = digest(preimage)
        if self._keeper.height == 0:
            self._keeper.block(BlockHeight(int(self._rpc.call("getinfo", {})["blockheight"])))
        self._keeper.settle(Digest(hashlib.sha256(bytes.fromhex(known)).hexdigest()), known)
        return {}

    def cancelholdinvoice(self, payment_hash: object) -> Json:
        """Fail the HTLCs of the hash and close the invoice."""
        self._keeper.cancel(digest(payment_hash))
        return {}

    def cleanholdinvoices(self, age: object = None) -> Json:
        """Forget cancelled invoices, or those that were made at least `age` seconds ago."""
        seconds = 0 if age is None else number(age, "age", 0, MAX_EXPIRY_S)
        return {"cleaned": self._store.clean(UnixTime(int(time.time()) - seconds))}

    def _decode(self, bolt11: str) -> Json:
        decoded = self._rpc.call("decode", {"string": bolt11})
        if decoded.get("type") != "bolt11 invoice" or decoded.get("valid") is not True:
            raise Refused("could not parse invoice")
        return decoded

    def _take(self, bolt11: str, explicit_min_cltv: int | None) -> None:
        """Put a signed invoice into the table, after lightningd has read it."""
        terms = self._decode(bolt11)
        if terms["payee"] != self._rpc.call("getinfo", {})["id"]:
            raise Refused("invoice is not related to us")
        if "amount_msat" not in terms or "payment_secret" not in terms:
            raise Refused("an invoice without amount or payment secret cannot be held")
        said = int(terms["min_final_cltv_expiry"])
        counts = said if explicit_min_cltv is None else explicit_min_cltv
        deadline = self._store.settings().expiry_deadline
        if counts <= deadline:
            raise Refused(f"a final CLTV of {counts} blocks leaves none to hold it: the last {deadline} are for cancelling")
        hashed = digest(terms["payment_hash"])
        if self._rpc.call("listinvoices", {"payment_hash": hashed})["invoices"]:
            raise Refused("the payment hash is in use by an ordinary invoice")
        created_at = UnixTime(int(terms["created_at"]))
        invoice = Invoice(
            payment_hash=hashed,
            payment_secret=str(terms["payment_secret"]),
            amount_msat=Msat(int(terms["amount_msat"])),
            min_cltv=said,
            expires_at=UnixTime(created_at + int(terms["expiry"])),
        )
        if invoice.amount_msat <= 0:
            raise Refused("an invoice without amount cannot be held")
        self._store.insert(invoice, bolt11, explicit_min_cltv, UnixTime(int(time.time())))


def digest(value: object) -> Digest:
    """32 bytes in hex. Raises Refused."""
    text = str(value).lower()
    if not is_hex32(text):
        raise Refused("Invalid string length" if len(text) % 2 == 0 else "Odd number of digits")
    return Digest(text)


def number(value: object, name: str, least: int, most: int) -> int:
    """A whole number, also as text, as `lightning-cli` may send it. Raises Refused."""
    try:
        found = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        found = None
    if found is None or not least <= found <= most:
        raise Refused(f"{name}: a whole number from {least} to {most}, not {value!r:.32}")
    return found


def listed(row: Row) -> Json:
    """A hold invoice as BoltzExchange/hold lists it: what is not there is left out."""
    invoice = row.invoice
    entry: Json = {
        "id": row.id,
        "payment_hash": invoice.payment_hash,
        "preimage": invoice.preimage if invoice.state is State.PAID else None,
        "invoice": row.bolt11,
        "state": invoice.state.value,
        "min_cltv": row.explicit_min_cltv,
        "created_at": naive(row.created_at),
        "settled_at": None if row.settled_at is None else naive(row.settled_at),
        "htlcs": [listed_htlc(row.id, number, htlc) for number, htlc in zip(row.htlc_ids, invoice.htlcs, strict=True)],
    }
    return {name: value for name, value in entry.items() if value is not None}


def listed_htlc(invoice_id: int, number: int, htlc: Htlc) -> Json:
    """One of its HTLCs; `channel_id` is what the plugin calls the number of the HTLC on its channel."""
    return {
        "id": number,
        "invoice_id": invoice_id,
        "state": htlc.state.value,
        "scid": htlc.scid,
        "channel_id": htlc.key.number,
        "msat": htlc.amount_msat,
        "cltv_expiry": htlc.cltv_expiry,
        "created_at": naive(htlc.received_at),
    }


def naive(when: UnixTime) -> str:
    """A time as chrono's NaiveDateTime serializes: UTC, without saying so."""
    return datetime.fromtimestamp(when, UTC).replace(tzinfo=None).isoformat(timespec="seconds")
