"""Core Lightning's methods about BOLT 12 offers, with the names, fields and error codes of its release 26.06.

An invoice request does not travel: the issuer's node answers at once, if it is up. What the last hop of an invoice's path would decrypt is there
in clear: the secret that the payment has to show.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Final

from nostrain.crypto import schnorr
from nostrain.devnet.simnet.info import NETWORK
from nostrain.devnet.simnet.invoices import CURRENCY, parse_msat, parse_ours
from nostrain.devnet.simnet.methods import NodeMethods
from nostrain.devnet.simnet.nodes import Invoice, Node, is_bolt12
from nostrain.devnet.simnet.params import DEFAULT_CLTV_FINAL, FetchInvoice, ListOffers, MakeOffer
from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, Method, RpcFailure
from nostrain.errors import RemoteProtocolError
from nostrain.units import Digest, Msat, UnixTime
from nostrain.wire.bolt11 import Bolt11
from nostrain.wire.bolt12 import BlindedPath
from nostrain.wire.bolt12_invoice import DEFAULT_EXPIRY_S, encode_invoice, parse_invoice_untrusted
from nostrain.wire.bolt12_offer import GENESIS, Bolt12Offer, encode_offer, parse_offer_untrusted

OFFER_ROUTE_NOT_FOUND: Final = 1003
OFFER_BAD_INVREQ_REPLY: Final = 1004


class OfferMethods(NodeMethods):
    """On one node."""

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "offer": Method(MakeOffer, self.offer, plugin=True),
            "listoffers": Method(ListOffers, self.listoffers),
            "fetchinvoice": Method(FetchInvoice, self.fetchinvoice, plugin=True),
        }

    def offer(self, asked: MakeOffer) -> Json:
        """An offer of any amount: the only kind that is made here. The same one again is no new one."""
        if asked.amount != "any" or asked.quantity_max is not None or asked.absolute_expiry is not None or asked.single_use:
            raise RpcFailure(INVALID_PARAMS, "the simnet makes offers of any amount only")
        text = encode_offer(NETWORK, asked.description or "", self.node.id)
        offer_id = parse_offer_untrusted(text).offer_id
        created = offer_id not in self.node.offers
        self.node.offers.setdefault(offer_id, (text, asked.label))
        return self.listed(offer_id) | {"created": created}

    def listoffers(self, asked: ListOffers) -> Json:
        """Every offer, or one."""
        return {"offers": [self.listed(offer_id) for offer_id in self.node.offers if asked.offer_id in (None, offer_id)]}

    def listed(self, offer_id: str) -> Json:
        """An offer as lightningd lists it."""
        used = any(is_bolt12(invoice.bolt11) and invoice.paid_at is not None for invoice in self.node.invoices)
        text, label = self.node.offers[offer_id]
        listed: Json = {"offer_id": offer_id, "active": True, "single_use": False, "bolt12": text, "used": used}
        return listed if label is None else listed | {"label": label}

    def fetchinvoice(self, asked: FetchInvoice) -> Json:
        """Ask the issuer for an invoice."""
        try:
            offer = parse_offer_untrusted(asked.offer)
        except RemoteProtocolError as error:
            raise RpcFailure(INVALID_PARAMS, f"offer: Unparsable offer: {error.reason}: invalid token '{asked.offer}'") from None
        if GENESIS[NETWORK] not in offer.chains:
            raise RpcFailure(INVALID_PARAMS, f"offer: Unparsable offer: wrong chain: invalid token '{asked.offer}'")
        if asked.amount_msat is None:
            raise RpcFailure(INVALID_PARAMS, "msatoshi parameter required")
        issuer = self.network.by_id.get(offer.signers[0])
        if issuer is None or not issuer.up or issuer is self.node:
            raise RpcFailure(OFFER_ROUTE_NOT_FOUND, "Failed: could not route or connect directly")
        if offer.offer_id not in issuer.offers:
            raise RpcFailure(OFFER_BAD_INVREQ_REPLY, "Remote node sent failure message", {"error": "Unknown offer"})
        return {"invoice": issue(issuer, offer, parse_msat(asked.amount_msat), self.node.id), "changes": {}}


def issue(node: Node, offer: Bolt12Offer, amount_msat: Msat, payer_id: str) -> str:
    """A new invoice of `node`."""
    preimage, secret = secrets.token_bytes(32), secrets.token_hex(32)
    payment_hash, now = Digest(hashlib.sha256(preimage).hexdigest()), UnixTime(int(time.time()))
    text = encode_invoice(
        offer,
        network=NETWORK,
        payer_id=payer_id,
        metadata=secrets.token_bytes(16),
        amount_msat=amount_msat,
        payment_hash=payment_hash,
        created_at=now,
        expiry_s=DEFAULT_EXPIRY_S,
        node_id=node.id,
        path=BlindedPath(node.id, node.id, ((node.id, secret),)),
        sign=lambda message: schnorr.sign(node.key.secret, message),
    )
    invoice = Invoice(
        index=node.indexes.bump("invoices", "created", bolt12=text, status="unpaid"),
        label=f"{offer.offer_id}-{payment_hash}",
        bolt11=text,
        description=offer.description or "",
        payment_hash=payment_hash,
        payment_secret=secret,
        preimage=preimage.hex(),
        amount_msat=amount_msat,
        expires_at=now + DEFAULT_EXPIRY_S,
        min_final_cltv=DEFAULT_CLTV_FINAL,
    )
    node.invoices.append(invoice)
    return text


def payable(invstring: str) -> Bolt11:
    """What an invoice of this network asks for, BOLT 12 in the terms of BOLT 11. Raises RpcFailure."""
    if not is_bolt12(invstring):
        return parse_ours(invstring)
    try:
        invoice = parse_invoice_untrusted(invstring)
    except RemoteProtocolError as error:
        raise RpcFailure(INVALID_PARAMS, f"Invalid bolt12 invoice: {error.reason}") from None
    if invoice.chain != GENESIS[NETWORK]:
        raise RpcFailure(INVALID_PARAMS, "Invalid bolt12 invoice: wrong chain")
    return Bolt11(
        currency=CURRENCY,
        payment_hash=invoice.payment_hash,
        payment_secret=invoice.paths[0].hops[-1][1],
        created_at=invoice.created_at,
        amount_msat=invoice.amount_msat,
        expiry_s=invoice.expiry_s,
        min_final_cltv=DEFAULT_CLTV_FINAL,
        payee=invoice.node_id,
    )
