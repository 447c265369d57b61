"""What was paid to our ordinary invoices, and to those made from our offers: lightningd numbers the payments in the order in which they came."""

from __future__ import annotations

from typing import Final

from nostrain.errors import Unavailable
from nostrain.lightning.node import ClnNode
from nostrain.lightning.replies import PaidInvoice
from nostrain.lightning.rpc import ClnError
from nostrain.ports.lightning import Income

NONE_YET: Final = 904
"""Error of waitanyinvoice when nothing came within its timeout."""


async def first_after(node: ClnNode, after: int) -> Income | None:
    """See `ports.lightning.Lightning.income`."""
    try:
        found = await node.ask("waitanyinvoice", {"lastpay_index": after, "timeout": 0}, PaidInvoice)
    except ClnError as error:
        if error.code == NONE_YET:
            return None
        raise Unavailable(str(error)) from error
    return Income(found.pay_index, found.label, found.description or "", found.payment_hash, found.amount_received_msat)
