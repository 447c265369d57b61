"""Payments to our Lightning node by ordinary invoices and offers, told to the machines in the node's own order, from where they were last told."""

from __future__ import annotations

import logging

import trio

from nostrain.core.escrow.income import KEY, SHARES
from nostrain.core.escrow.rows import Income as Told
from nostrain.core.inputs import InvoicePaid
from nostrain.core.treasury.liquidity import KEY as LIGHTNING
from nostrain.core.treasury.liquidity_rows import LightningNode
from nostrain.daemon.node_feed import POLL_S
from nostrain.daemon.runtime import Runtime
from nostrain.daemon.tickets import ticket_of
from nostrain.errors import Unavailable
from nostrain.ports.lightning import Income, Lightning

log = logging.getLogger("nostrain.feeds")


class IncomeFeed:
    """How far one node's payments were looked through; what the operator's other programs are paid is passed over."""

    def __init__(self, runtime: Runtime, lightning: Lightning) -> None:
        self._runtime, self._lightning = runtime, lightning
        self._node_id, self._after = "", 0

    async def run(self) -> None:
        """Look every POLL_S while the node is there, until cancelled."""
        failed = False
        while True:
            try:
                await self.look()
                failed = False
            except Unavailable as error:
                if not failed:
                    log.warning("payments to us: %s", error)
                failed = True
            await trio.sleep(POLL_S)

    async def look(self) -> None:
        """Tell all that was paid and not told yet. Raises Unavailable."""
        rows = self._runtime.state.rows
        node, told = rows.get(LIGHTNING), rows.get(KEY)
        if not isinstance(node, LightningNode) or not node.node_id:
            return
        if node.node_id != self._node_id:
            self._node_id, self._after = node.node_id, told.index if isinstance(told, Told) and told.node_id == node.node_id else 0
        while (found := await self._lightning.income(self._after)) is not None:
            paid = read(self._node_id, found)
            if paid is not None:
                await self._runtime.put(paid)
            self._after = found.index


def read(node_id: str, found: Income) -> InvoicePaid | None:
    """As the machines take it; None for what is none of their business."""
    ticket = ticket_of(found.label)
    if ticket is not None:
        return InvoicePaid(node_id, found.index, found.payment_hash, found.amount_msat, *ticket)
    if found.description.startswith(SHARES):
        run = found.description.removeprefix(SHARES)
        return InvoicePaid(node_id, found.index, found.payment_hash, found.amount_msat, run=run)
    return None
