"""What a ticket's sale takes place between: a round, its price, and the book of the tickets sold."""

from __future__ import annotations

from nostrain.ports.tickets import Ticket, TicketTerms
from nostrain.units import EventId, Msat, Pubkey, UnixTime

RUN, ROUND = EventId("11" * 32), EventId("22" * 32)
FEE, SIZE = Msat(20_001), 50_000


class Book:
    """One round's tickets, in memory."""

    def __init__(self, worker: Pubkey, now: UnixTime) -> None:
        self._terms = TicketTerms(RUN, FEE, SIZE, frozenset({worker}), UnixTime(now + 300), UnixTime(now + 600))
        self.sold: dict[Pubkey, Ticket] = {}

    def terms(self, announcement: EventId) -> TicketTerms | None:
        return self._terms if announcement == ROUND else None

    def held(self, announcement: EventId, worker: Pubkey) -> Ticket | None:
        return self.sold.get(worker)

    async def redeem(self, ticket: Ticket) -> Ticket:
        return self.sold.setdefault(ticket.worker, ticket)
