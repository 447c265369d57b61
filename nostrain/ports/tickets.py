"""The submission fee: what the paywall needs of the node that sells tickets, and the buyer of the node that buys them (design section 7)."""

from __future__ import annotations

from typing import Protocol

import msgspec

from nostrain.ports.lightning import PayResult
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime


class TicketTerms(msgspec.Struct, frozen=True):
    """On what terms tickets of one round are sold: to these workers, for uploads of at most `max_size` bytes.

    Sold before `sold_until`; a ticket paid for by then can be claimed, and used, before `expires`.
    """

    run: EventId
    fee_msat: Msat
    max_size: int
    workers: frozenset[Pubkey]
    sold_until: UnixTime
    expires: UnixTime


class Ticket(msgspec.Struct, frozen=True):
    """A paid submission fee: `worker` takes part in the round of `announcement` and may upload `size` bytes for it.

    `token` is the L402 token's own id, `payment_hash` that of the payment.
    """

    announcement: EventId
    worker: Pubkey
    size: int
    token: Digest
    payment_hash: Digest


class TicketBook(Protocol):
    """Which tickets are for sale, and which were sold."""

    def terms(self, announcement: EventId) -> TicketTerms | None:
        """The terms of a round, open or over; None when there is no such round here."""
        ...

    def held(self, announcement: EventId, worker: Pubkey) -> Ticket | None:
        """The ticket that the worker holds."""
        ...

    async def redeem(self, ticket: Ticket) -> Ticket:
        """Record a paid ticket; durable when this returns. The ticket that the worker holds from now on: this one, or an earlier one.

        Idempotent. Raises Unavailable: nothing was recorded. Cancellation: it may or may not have been, and doing it again is safe.
        """
        ...


class InvoiceSource(Protocol):
    """Makes ordinary (not held) invoices of our own node."""

    async def invoice(
        self,
        amount_msat: Msat,
        description: str,
        expiry_s: int,
        preimage: bytes | None = None,
        ticket: tuple[EventId, Pubkey] | None = None,
    ) -> tuple[str, Digest]:
        """A fresh BOLT 11 invoice and its payment hash. `preimage`: 32 secret bytes to be used once; None: the node draws them. `ticket`: for whose
        ticket of which round it is, so that what is paid and never claimed can be told.

        Raises Unavailable.
        """
        ...


class TicketKeys(Protocol):
    """Root keys of tickets."""

    def ticket_key(self, token: bytes) -> bytes:
        """32 secret bytes for the token of that id (32 bytes): the same ones for ever, so that nothing need be stored."""
        ...


class TicketPayer(Protocol):
    """The part of `ports.lightning.Lightning` that buys a ticket."""

    async def pay(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """See `Lightning.pay`: once, query-first."""
        ...


class PurchasePayer(TicketPayer, Protocol):
    """One that can be asked about a purchase that was given up."""

    async def ended(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """How a payment that may have been begun has ended. Nothing is sent; one that was not begun has failed when nobody can begin it any more,
        which may take until the invoice has expired. Raises OutcomeUnknown.
        """
        ...


class PaidTicket(msgspec.Struct, frozen=True):
    """What we paid for a ticket, and whether we have claimed it."""

    payment_hash: Digest
    amount_msat: Msat
    claimed: bool


class TicketBuyer(Protocol):
    """Buys our tickets from other nodes."""

    async def buy_ticket(self, server: str, run: EventId, announcement: EventId, size: int, ceiling_msat: Msat) -> Ticket:
        """Our ticket of the round, bought at the base URL `server` if it is not held already. Idempotent; nothing is ever paid twice.

        Raises Unavailable (try again), OutcomeUnknown (call again: it asks first), RemoteProtocolError (refused for good, or too dear).
        """
        ...

    async def find_payment(self, announcement: EventId) -> PaidTicket | None:
        """What we paid for the ticket of a round, once that will not change any more; None if nothing. Nothing is bought.

        Raises Unavailable, OutcomeUnknown: ask again.
        """
        ...


class TicketShower(Protocol):
    """Shows our tickets with the uploads that they pay for."""

    async def show_ticket(self, announcement: EventId, server: str, digest: Digest) -> str | None:
        """The value of `Authorization` that lets us upload `digest` to the base URL `server`, by our ticket of the round narrowed to it.

        None when we have no ticket of that server: a ticket is never shown to another one. Raises Unavailable.
        """
        ...


class Purchase(msgspec.Struct, frozen=True):
    """How far the purchase of one ticket has come. `macaroon` is base64; `preimage` is there once it is paid, `ticket` once it is claimed.

    `server` is the base URL that sells it.
    """

    announcement: EventId
    size: int
    macaroon: str
    invoice: str
    preimage: str | None = None
    ticket: Ticket | None = None
    server: str = ""


class TicketWallet(Protocol):
    """Remembers our purchases through crashes, so that nothing is paid twice. One purchase a round."""

    async def load(self, announcement: EventId) -> Purchase | None:
        """The purchase as it was last saved. Raises Unavailable."""
        ...

    async def save(self, purchase: Purchase) -> None:
        """Replace the round's purchase; durable when this returns. Raises Unavailable."""
        ...

    async def forget(self, announcement: EventId) -> None:
        """Drop the round's purchase; it is certain that it was never paid. Raises Unavailable."""
        ...
