"""Selling tickets: the paywall's book is the node's own journalled state, its invoices are those of our Lightning node."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Final

import trio

from nostrain.core.escrow.rows import Tickets
from nostrain.core.escrow.ticket import charged
from nostrain.core.inputs import TicketRedeemed
from nostrain.core.rows import NodeState, Round, Run
from nostrain.daemon.runtime import Runtime
from nostrain.daemon.uploads import RunUploads
from nostrain.errors import Unavailable
from nostrain.http.ticket_gate import TicketGate
from nostrain.lightning.client import ClnLightning
from nostrain.ports.entropy import Entropy
from nostrain.ports.tickets import Ticket, TicketTerms
from nostrain.ports.tolls import FreePassage, Passage, Refusal, Shown, Tolls, Use
from nostrain.units import Digest, EventId, Msat, Pubkey, is_hex32

TICKETS: Final = "nostrain-ticket/"
FRESH: Final = 16
"""Characters that make a label a new one."""
RECORD_S: Final = 20.0
"""How long the journal may take to record a ticket; its round may be gone by then."""


class NodeTickets:
    """`ports.tickets.TicketBook` of a coordinator: terms follow from the open round, sold tickets are rows."""

    def __init__(self, state: Callable[[], NodeState], runtime: Callable[[], Runtime | None]) -> None:
        self._state, self._runtime = state, runtime

    def terms(self, announcement: EventId) -> TicketTerms | None:
        """As the port. A fee that is not charged has no terms."""
        rows = self._state().rows
        run, round_ = rows.get("run"), rows.get(f"round/{announcement}")
        if not isinstance(run, Run) or not isinstance(round_, Round) or not charged(run.manifest):
            return None
        return TicketTerms(
            run=run.id,
            fee_msat=run.manifest.settlement.fee_msat,
            max_size=run.manifest.max_delta_bytes,
            workers=frozenset(round_.announcement.workers),
            sold_until=round_.announcement.deadlines.commit_by,
            expires=round_.announcement.deadlines.attest_by,
        )

    def held(self, announcement: EventId, worker: Pubkey) -> Ticket | None:
        """As the port."""
        row = self._state().rows.get(f"tickets/{announcement}")
        sold = row.sold.get(worker) if isinstance(row, Tickets) else None
        return Ticket(announcement, worker, sold.size, sold.token, sold.payment_hash) if sold is not None else None

    async def redeem(self, ticket: Ticket) -> Ticket:
        """As the port: returns once the journal has it."""
        runtime = self._runtime()
        assert runtime is not None  # the server is asked after the runtime was made
        with trio.move_on_after(RECORD_S):
            await runtime.put(TicketRedeemed(ticket.announcement, ticket.worker, ticket.size, ticket.token, ticket.payment_hash))
            while (held := self.held(ticket.announcement, ticket.worker)) is None:
                await runtime.changed.wait()
            return held
        raise Unavailable("the ticket could not be recorded")


class RunTolls:
    """`ports.tolls.Tolls` of a node: a worker's upload takes the ticket of the open round, if that was sold here; what belongs to the run is
    uploaded for nothing; the rest is `prices`' business.
    """

    def __init__(self, uploads: RunUploads, tickets: TicketGate | None, prices: Tolls) -> None:
        self._uploads, self._tickets, self._prices = uploads, tickets, prices

    async def admit(self, use: Use, shown: Shown) -> Passage | Refusal:
        """As the port."""
        if use.route != "upload" or use.who is None or use.sha256 is None or self._uploads.uninvited(use.who, use.sha256, use.size):
            return await self._prices.admit(use, shown)
        round_ = self._uploads.ticketed(use.who)
        refusal = await self._tickets.admit(round_, use, shown) if round_ is not None and self._tickets is not None else None
        return refusal or FreePassage()


def ticket_label(announcement: EventId, worker: Pubkey, fresh: str) -> str:
    """The label of an invoice for a ticket; lightningd takes 128 characters, so that the two are in base64."""
    return f"{TICKETS}{encoded(announcement)}/{encoded(worker)}/{fresh[:FRESH]}"


def ticket_of(label: str) -> tuple[EventId, Pubkey] | None:
    """For which round and worker an invoice's label says that it is; None for one of another kind, or another program's."""
    announcement, worker = (decoded(part) for part in (*label.removeprefix(TICKETS).split("/"), "", "")[:2])
    if not label.startswith(TICKETS) or announcement is None or worker is None:
        return None
    return EventId(announcement), Pubkey(worker)


def encoded(hex32: str) -> str:
    """32 bytes of hex in base64, without padding."""
    return urlsafe_b64encode(bytes.fromhex(hex32)).decode().rstrip("=")


def decoded(text: str) -> str | None:
    """What was `encoded`, None if nothing was."""
    try:
        found = urlsafe_b64decode(f"{text}=").hex()
    except ValueError:
        return None
    return found if is_hex32(found) and encoded(found) == text else None


class NodeInvoices:
    """`ports.tickets.InvoiceSource`: ordinary invoices of our Lightning node, each under a fresh label."""

    def __init__(self, lightning: ClnLightning, entropy: Entropy) -> None:
        self._lightning, self._entropy = lightning, entropy

    async def invoice(
        self,
        amount_msat: Msat,
        description: str,
        expiry_s: int,
        preimage: bytes | None = None,
        ticket: tuple[EventId, Pubkey] | None = None,
    ) -> tuple[str, Digest]:
        """As the port."""
        fresh = self._entropy.draw(16).hex()
        label = f"nostrain-{fresh}" if ticket is None else ticket_label(*ticket, fresh)
        issued = await self._lightning.invoice(label, amount_msat, description, expiry_s, preimage)
        return issued.bolt11, issued.payment_hash
