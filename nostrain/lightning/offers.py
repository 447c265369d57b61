"""BOLT 12 on lightningd: our own offer, invoices from the offers of others, and paying those once.

The invoice's signature, amount, chain and offer are checked here again: what lightningd's plugins promise is cheap to know for certain. `xpay`
pays, since an invoice's way to its node is blinded; what happened is read from lightningd's table, as for every other payment.
"""

from __future__ import annotations

import time
from typing import Final

import trio

from nostrain.errors import LocalProtocolError, OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.lightning.node import ClnNode
from nostrain.lightning.payments import POLL_S, RETRY_FOR_S, SETTLING_S, begun, find_a_way, once
from nostrain.lightning.replies import FetchInvoice, ListOffers, OfferReply
from nostrain.lightning.rpc import ClnError
from nostrain.ports.lightning import FetchedInvoice, PayResult
from nostrain.units import Digest, Msat
from nostrain.wire.bolt12_invoice import Bolt12Invoice, check_answers_untrusted, parse_invoice_untrusted
from nostrain.wire.bolt12_offer import GENESIS, Bolt12Offer, parse_offer_untrusted

FETCH_S: Final = 20
"""How long the other node may take to answer an invoice request."""
OFFER_ALREADY_EXISTS: Final = 1000
CANNOT_BE_PAID: Final = frozenset({-32602, 1002, 1004})
"""Errors of fetchinvoice that another attempt with the same offer will not mend: what we ask for is wrong, expired, or refused by the other node."""


async def make(node: ClnNode, description: str) -> str:
    """See `ports.lightning.Lightning.offer`. The label finds it again: a node without public channels puts other blinded paths into each offer."""
    for known in (await node.read("listoffers", {"active_only": True}, ListOffers)).offers:
        if known.label == description:
            return known.bolt12
    try:
        made = await node.ask("offer", {"amount": "any", "description": description, "label": description}, OfferReply)
    except ClnError as error:
        if error.code == OFFER_ALREADY_EXISTS:
            raise LocalProtocolError(f"the offer {description!r} was disabled at our node") from error
        raise Unavailable(str(error)) from error
    if not made.active:
        raise LocalProtocolError(f"the offer {description!r} was disabled at our node")
    return made.bolt12


async def fetch(node: ClnNode, offer: str, amount_msat: Msat) -> FetchedInvoice:
    """See `ports.lightning.Lightning.fetch_invoice`."""
    network = (await node.info()).network
    wanted = payable(parse_offer_untrusted(offer), network, time.time())
    params = {"offer": offer, "amount_msat": amount_msat, "timeout": FETCH_S}
    try:
        reply = await node.rpc.call("fetchinvoice", params, FetchInvoice, timeout_s=FETCH_S + node.timeout_s)
    except OutcomeUnknown as error:
        raise Unavailable(str(error)) from error
    except ClnError as error:
        if error.code in CANNOT_BE_PAID:
            raise RemoteProtocolError("offer", f"no invoice: {error}") from error
        raise Unavailable(str(error)) from error
    invoice = parse_invoice_untrusted(reply.invoice)
    check_answers_untrusted(invoice, wanted, amount_msat, network)
    if time.time() >= invoice.expires_at:
        raise RemoteProtocolError("invoice", "had expired when it came")
    return FetchedInvoice(reply.invoice, invoice.payment_hash)


def payable(offer: Bolt12Offer, network: str, now: float) -> Bolt12Offer:
    """The offer, if any amount may be paid to it now. Raises RemoteProtocolError."""
    if network not in offer.networks:
        raise RemoteProtocolError("offer", f"is not for {network}")
    if not offer.open:
        raise RemoteProtocolError("offer", "asks for an amount or quantity of its own")
    if offer.expires_at is not None and now >= offer.expires_at:
        raise RemoteProtocolError("offer", "has expired")
    return offer


async def pay(node: ClnNode, bolt12: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
    """See `ports.lightning.Lightning.pay_fetched`."""
    try:
        invoice = await checked(node, bolt12, payment_hash, amount_msat)
        if invoice is None:
            return PayResult(payment_hash, None)
        return await once(node, payment_hash, lambda: past(invoice, time.time()), lambda: send(node, bolt12, invoice))
    except Unavailable as error:
        raise OutcomeUnknown(str(error)) from error


async def checked(node: ClnNode, bolt12: str, payment_hash: Digest, amount_msat: Msat) -> Bolt12Invoice | None:
    """The invoice, if it is the one that was fetched, on this node's network; None otherwise. Raises Unavailable."""
    try:
        invoice = parse_invoice_untrusted(bolt12)
    except RemoteProtocolError:
        return None
    network = (await node.info()).network
    fits = (invoice.payment_hash, invoice.amount_msat, invoice.chain) == (payment_hash, amount_msat, GENESIS.get(network))
    return invoice if fits else None


def past(invoice: Bolt12Invoice, now: float) -> bool:
    """Whether an `xpay` that was begun before the expiry, by us before a crash, cannot send anything any more."""
    return now >= invoice.expires_at + RETRY_FOR_S + SETTLING_S


async def send(node: ClnNode, bolt12: str, invoice: Bolt12Invoice) -> bool:
    """Send it, unless it has expired. True: nothing more will be sent, and if lightningd's table has nothing, it was refused.

    Raises Unavailable when it could not be sent now, or when that is not known.
    """
    if time.time() >= invoice.expires_at:
        await trio.sleep(POLL_S)
        return False
    return await begun(find_a_way(node, bolt12))
