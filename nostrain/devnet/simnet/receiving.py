"""What a node does with an HTLC that ends at it: hold invoices first, as the plugin's `htlc_accepted` hook comes first, then lightningd's own.

Sources: `holdplugin/invoices.py`; Core Lightning `lightningd/invoice.c`, `htlc_set.c`; BOLT 4.
"""

from __future__ import annotations

import time
from typing import Final

from nostrain.devnet.simnet.channels import Htlc, HtlcRefused, Onion
from nostrain.devnet.simnet.nodes import MPP_TIMEOUT_S, Hold, HoldHtlc, Invoice, InvoiceState, Network, Node
from nostrain.units import BlockHeight, Msat

OVERPAYMENT_FACTOR: Final = 2


def receive(network: Network, node: Node, htlc: Htlc, payment_secret: str, total_msat: Msat) -> None:
    """Hold, fulfil or fail an HTLC that was just added to a channel of `node`."""
    hold = node.holds.get(htlc.payment_hash)
    if hold is not None:
        receive_held(network.height, node, hold, htlc, payment_secret)
        return
    invoice = next((invoice for invoice in node.invoices if invoice.payment_hash == htlc.payment_hash), None)
    if invoice is None or not acceptable(network.height, invoice, htlc, payment_secret, total_msat):
        htlc.channel.fail(htlc, HtlcRefused(Onion.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS, "reply from remote", at_destination=True))
        return
    parts = node.parts.setdefault(htlc.payment_hash, [])
    parts.append((time.time(), htlc))
    if sum(part.amount_msat for _, part in parts) >= total_msat:
        del node.parts[htlc.payment_hash]
        invoice.paid_at = int(time.time())
        invoice.updated_index = node.indexes.bump("invoices", "updated", label=invoice.label, status="paid")
        invoice.pay_index = sum(other.pay_index is not None for other in node.invoices) + 1
        invoice.received_msat = Msat(sum(part.amount_msat for _, part in parts))
        for _, part in parts:
            part.channel.fulfil(part, invoice.preimage)


def acceptable(height: BlockHeight, invoice: Invoice, htlc: Htlc, payment_secret: str, total_msat: Msat) -> bool:
    """Whether lightningd takes the HTLC for `invoice`."""
    if invoice.state is not InvoiceState.UNPAID or invoice.payment_secret != payment_secret:
        return False
    if htlc.cltv_expiry < height + invoice.min_final_cltv:
        return False
    asked = invoice.amount_msat
    return asked is None or asked <= total_msat <= asked * OVERPAYMENT_FACTOR


def receive_held(height: BlockHeight, node: Node, hold: Hold, htlc: Htlc, payment_secret: str) -> None:
    """The plugin's rules; the HTLC goes into its table whatever becomes of it."""
    min_cltv = hold.min_cltv if hold.explicit_min_cltv is None else hold.explicit_min_cltv
    fits = (
        hold.state == "unpaid"
        and hold.payment_secret == payment_secret
        and htlc.cltv_expiry - height >= min_cltv
        and hold.accepted_msat() + htlc.amount_msat <= hold.amount_msat * OVERPAYMENT_FACTOR
    )
    refusal = None if fits else Onion.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS
    entry = HoldHtlc(next(node.ids), "accepted" if refusal is None else "cancelled", htlc, time.time())
    hold.htlcs.append(entry)
    if refusal is not None:
        entry.fail(refusal)
        return
    hold.pending.append(entry)
    if hold.accepted_msat() >= hold.amount_msat:
        hold.state = "accepted"


def drop_partial_sets(network: Network) -> None:
    """Fail the parts of payments whose rest did not come in time; called about once a second."""
    now = time.time()
    for node in network.nodes.values():
        for hold in node.holds.values():
            hold.drop_partial_set(now)
        for payment_hash, parts in list(node.parts.items()):
            if now - parts[0][0] > MPP_TIMEOUT_S:
                del node.parts[payment_hash]
                for _, part in parts:
                    part.channel.fail(part, HtlcRefused(Onion.MPP_TIMEOUT, "reply from remote", at_destination=True))
    network.check()
