"""Core Lightning's methods about invoices, with the names, fields and error codes of its release 26.06."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Final

import trio

from nostrain.devnet.simnet.bolt12 import decode_bolt12
from nostrain.devnet.simnet.methods import NodeMethods
from nostrain.devnet.simnet.nodes import Invoice, InvoiceState, Node, is_bolt12
from nostrain.devnet.simnet.params import DelInvoice, InvString, ListInvoices, MakeInvoice, String, WaitAnyInvoice
from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, Method, RpcFailure
from nostrain.errors import RemoteProtocolError
from nostrain.units import Digest, Msat, UnixTime
from nostrain.wire.bolt11 import Bolt11, encode_bolt11, parse_bolt11_untrusted, parse_unsigned_untrusted

CURRENCY: Final = "bcrt"
MAX_LABEL: Final = 128
INVOICE_LABEL_ALREADY_EXISTS: Final = 900
INVOICE_PREIMAGE_ALREADY_EXISTS: Final = 901
INVOICE_WAIT_TIMED_OUT: Final = 904
INVOICE_NOT_FOUND: Final = 905
INVOICE_STATUS_UNEXPECTED: Final = 906


class InvoiceMethods(NodeMethods):
    """On one node."""

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "invoice": Method(MakeInvoice, self.invoice),
            "listinvoices": Method(ListInvoices, self.listinvoices),
            "waitanyinvoice": Method(WaitAnyInvoice, self.waitanyinvoice),
            "delinvoice": Method(DelInvoice, self.delinvoice),
            "decode": Method(String, self.decode),
            "signinvoice": Method(InvString, self.signinvoice),
        }

    def invoice(self, asked: MakeInvoice) -> Json:
        """A new invoice."""
        label = str(asked.label)
        if len(label) > MAX_LABEL:
            raise RpcFailure(INVALID_PARAMS, f"Label '{label}' over {MAX_LABEL} bytes")
        if any(invoice.label == label for invoice in self.node.invoices):
            raise RpcFailure(INVOICE_LABEL_ALREADY_EXISTS, f"Duplicate label '{label}'")
        preimage = asked.preimage or secrets.token_hex(32)
        payment_hash = Digest(hashlib.sha256(bytes.fromhex(preimage)).hexdigest())
        if any(invoice.payment_hash == payment_hash for invoice in self.node.invoices):
            raise RpcFailure(INVOICE_PREIMAGE_ALREADY_EXISTS, "preimage already used")
        terms = Bolt11(
            currency=CURRENCY,
            payment_hash=payment_hash,
            payment_secret=hashlib.sha256(b"secret" + bytes.fromhex(preimage)).hexdigest(),
            created_at=UnixTime(int(time.time())),
            amount_msat=None if asked.amount_msat == "any" else parse_msat(asked.amount_msat),
            description=asked.description,
            expiry_s=asked.expiry,
            min_final_cltv=asked.cltv,
        )
        bolt11 = sign(self.node, terms)
        invoice = Invoice(
            index=self.node.indexes.bump("invoices", "created", label=label, bolt11=bolt11, status="unpaid"),
            label=label,
            bolt11=bolt11,
            description=asked.description,
            payment_hash=payment_hash,
            payment_secret=terms.payment_secret,
            preimage=preimage,
            amount_msat=terms.amount_msat,
            expires_at=terms.created_at + terms.expiry_s,
            min_final_cltv=terms.min_final_cltv,
        )
        self.node.invoices.append(invoice)
        return {
            "bolt11": invoice.bolt11,
            "payment_hash": payment_hash,
            "payment_secret": invoice.payment_secret,
            "expires_at": invoice.expires_at,
            "created_index": invoice.index,
        }

    def listinvoices(self, asked: ListInvoices) -> Json:
        """Every invoice, or one."""
        if sum(one is not None for one in (asked.label, asked.invstring, asked.payment_hash, asked.offer_id)) > 1:
            raise RpcFailure(INVALID_PARAMS, "Can only specify one of {label}, {invstring}, {payment_hash} or {offer_id}")
        label = None if asked.label is None else str(asked.label)
        wanted = [
            listed_invoice(invoice)
            for invoice in self.node.invoices
            if label in (None, invoice.label)
            and asked.invstring in (None, invoice.bolt11)
            and asked.payment_hash in (None, invoice.payment_hash)
        ]
        return {"invoices": wanted}

    async def waitanyinvoice(self, asked: WaitAnyInvoice) -> Json:
        """The first invoice that was paid after the `lastpay_index`-th."""
        with trio.move_on_after(float("inf") if asked.timeout is None else asked.timeout):
            while True:
                later = [one for one in self.node.invoices if one.pay_index is not None and one.pay_index > asked.lastpay_index]
                if later:
                    return listed_invoice(min(later, key=lambda one: one.pay_index or 0))
                changed: trio.Event = self.node.indexes.changed
                await changed.wait()
        raise RpcFailure(INVOICE_WAIT_TIMED_OUT, "Timed out")

    def delinvoice(self, asked: DelInvoice) -> Json:
        """Forget an invoice that is in the state that the caller believes."""
        found = next((invoice for invoice in self.node.invoices if invoice.label == str(asked.label)), None)
        if found is None:
            raise RpcFailure(INVOICE_NOT_FOUND, "Unknown invoice")
        if found.state.value != asked.status:
            data = {"current_status": found.state.value, "expected_status": asked.status}
            raise RpcFailure(INVOICE_STATUS_UNEXPECTED, f"Invoice status is {found.state.value} not {asked.status}", data)
        self.node.invoices.remove(found)
        self.node.indexes.bump("invoices", "deleted", label=found.label, status=found.state.value)
        return listed_invoice(found)

    def decode(self, asked: String) -> Json:
        """An invoice of any network, BOLT 11 or 12, or a BOLT 12 offer."""
        if asked.string.startswith(("lno1", "lni1")):
            return decode_bolt12(asked.string)
        try:
            terms = parse_bolt11_untrusted(asked.string)
        except RemoteProtocolError as error:
            raise RpcFailure(INVALID_PARAMS, f"Invalid bolt11: {error.reason}") from None
        listed: Json = {
            "type": "bolt11 invoice",
            "currency": terms.currency,
            "created_at": terms.created_at,
            "expiry": terms.expiry_s,
            "payee": terms.payee,
            "amount_msat": terms.amount_msat,
            "description": terms.description,
            "description_hash": terms.description_hash,
            "min_final_cltv_expiry": terms.min_final_cltv,
            "payment_secret": terms.payment_secret,
            "features": f"{terms.features:x}",
            "payment_hash": terms.payment_hash,
            "valid": True,
        }
        return {name: value for name, value in listed.items() if value is not None}

    def signinvoice(self, asked: InvString) -> Json:
        """The same invoice with this node's signature."""
        try:
            terms = parse_unsigned_untrusted(asked.invstring)
        except RemoteProtocolError as error:
            raise RpcFailure(INVALID_PARAMS, f"Unparsable invoice '{asked.invstring}': {error.reason}") from None
        if terms.currency != CURRENCY:
            raise RpcFailure(INVALID_PARAMS, f"Unparsable invoice '{asked.invstring}': Prefix {terms.currency} is not for this network")
        return {"bolt11": sign(self.node, terms)}


def sign(node: Node, terms: Bolt11) -> str:
    """The text of an invoice of `node`."""
    return encode_bolt11(terms, node.key.sign_recoverable)


def parse_ours(bolt11: str) -> Bolt11:
    """An invoice of this network. Raises RpcFailure."""
    try:
        terms = parse_bolt11_untrusted(bolt11)
    except RemoteProtocolError as error:
        raise RpcFailure(INVALID_PARAMS, f"Invalid invstring: {error.reason}") from None
    if terms.currency != CURRENCY:
        raise RpcFailure(INVALID_PARAMS, f"Invalid invstring: prefix {terms.currency} is not for this network")
    return terms


def listed_invoice(invoice: Invoice) -> Json:
    """An invoice as lightningd lists it."""
    listed: Json = {
        "label": invoice.label,
        "bolt12" if is_bolt12(invoice.bolt11) else "bolt11": invoice.bolt11,
        "payment_hash": invoice.payment_hash,
        "amount_msat": invoice.amount_msat,
        "status": invoice.state.value,
        "description": invoice.description,
        "expires_at": invoice.expires_at,
        "created_index": invoice.index,
    }
    if invoice.state is InvoiceState.PAID:
        listed |= {
            "updated_index": invoice.updated_index,
            "pay_index": invoice.pay_index,
            "amount_received_msat": invoice.received_msat,
            "paid_at": invoice.paid_at,
            "payment_preimage": invoice.preimage,
        }
    return {name: value for name, value in listed.items() if value is not None}


def parse_msat(amount: int | str) -> Msat:
    """A number, or a number followed by `msat`. Raises RpcFailure."""
    text = str(amount).removesuffix("msat")
    if not text.isdecimal() or int(text) <= 0:
        raise RpcFailure(INVALID_PARAMS, f"amount_msat: should be positive msat or 'any': invalid token '{amount}'")
    return Msat(int(text))
