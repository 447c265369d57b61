"""What `decode` says of BOLT 12 strings, with the names of Core Lightning's `doc/schemas/decode.json`."""

from __future__ import annotations

from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, RpcFailure
from nostrain.errors import RemoteProtocolError
from nostrain.wire.bolt12_invoice import parse_invoice_untrusted
from nostrain.wire.bolt12_offer import Bolt12Offer, parse_offer_untrusted


def decode_bolt12(text: str) -> Json:
    """An offer or an invoice of any network. Raises RpcFailure."""
    try:
        return decode_offer(parse_offer_untrusted(text)) if text.startswith("lno1") else decode_invoice(text)
    except RemoteProtocolError as error:
        raise RpcFailure(INVALID_PARAMS, f"Invalid bolt12: {error.reason}") from None


def decode_offer(offer: Bolt12Offer) -> Json:
    """The fields of an offer."""
    listed: Json = {
        "type": "bolt12 offer",
        "offer_id": offer.offer_id,
        "offer_chains": list(offer.chains),
        "offer_amount_msat": offer.amount_msat,
        "offer_description": offer.description,
        "offer_absolute_expiry": offer.expires_at,
        "offer_quantity_max": offer.quantity_max,
        "offer_issuer_id": offer.signers[0],
        "valid": True,
    }
    return {name: value for name, value in listed.items() if value is not None}


def decode_invoice(text: str) -> Json:
    """The fields of an invoice that are its own."""
    invoice = parse_invoice_untrusted(text)
    return {
        "type": "bolt12 invoice",
        "invreq_chain": invoice.chain,
        "invoice_created_at": invoice.created_at,
        "invoice_relative_expiry": invoice.expiry_s,
        "invoice_payment_hash": invoice.payment_hash,
        "invoice_amount_msat": invoice.amount_msat,
        "invoice_node_id": invoice.node_id,
        "valid": True,
    }
