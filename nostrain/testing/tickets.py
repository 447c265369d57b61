"""Tickets in a simulation: the real paywall and the real buyer, over invoices in memory that are paid from the fake ledger.

No sockets and no threads: requests go to the paywall's ASGI application directly, and a worker's wallet is a dict that outlives its crashes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import httpx
import trio
from coincurve import PrivateKey
from starlette.types import ASGIApp

from nostrain.core.rows import NodeState
from nostrain.daemon.runtime import Runtime
from nostrain.daemon.tickets import NodeTickets, ticket_label
from nostrain.errors import OutcomeUnknown
from nostrain.http.l402_client import TicketClient
from nostrain.http.paywall import Paywall, paywall_app
from nostrain.keys.store import RootSecret
from nostrain.keys.tickets import DerivedTicketKeys
from nostrain.ports.clock import Clock
from nostrain.ports.lightning import PayResult
from nostrain.ports.signer import Signer
from nostrain.ports.tickets import Purchase
from nostrain.testing.entropy import SeededEntropy
from nostrain.testing.lightning import FakeLedger
from nostrain.testing.steps import Steps
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime
from nostrain.wire.bolt11 import Bolt11, encode_bolt11

SERVER: Final = "http://tickets.sim"


@dataclass(frozen=True)
class TicketFaults:
    """What goes wrong. `unavailable`: chance that a request is not answered; half of those were carried out.

    `lost_replies` payments are made and come back as OutcomeUnknown.
    """

    unavailable: float = 0.0
    lost_replies: int = 0


@dataclass
class TicketInvoice:
    """An ordinary invoice of the seller's; `payer` once it is paid."""

    bolt11: str
    amount_msat: Msat
    expires: UnixTime
    preimage: str
    label: str
    payer: str | None = None


class FakeTicketOffice:
    """Sells the tickets of the node whose runtime `runtime` returns, and keeps everybody's wallet. `payments` are (payer, hash) as they were made."""

    def __init__(
        self, ledger: FakeLedger, clock: Clock, seed: int, root: RootSecret, runtime: Callable[[], Runtime | None], faults: TicketFaults
    ) -> None:
        self.ledger, self.clock, self.faults = ledger, clock, faults
        self.invoices: dict[Digest, TicketInvoice] = {}
        self.payments: list[tuple[str, Digest]] = []
        self.wallets: dict[str, FakeWallet] = {}
        self.lost_replies = faults.lost_replies
        self._entropy, self._rng = SeededEntropy(seed, "tickets"), random.Random(f"{seed}/tickets")
        self._key = PrivateKey(hashlib.sha256(b"nostrain/testing/tickets").digest())

        def state() -> NodeState:
            found = runtime()
            return found.state if found is not None else NodeState()

        paywall = Paywall(NodeTickets(state, runtime), self, DerivedTicketKeys(root), clock, self._entropy, public_url=SERVER)
        self._transport = FaultyTransport(paywall_app(paywall), self._rng, faults.unavailable)

    def buyer(self, name: str, signer: Signer, steps: Steps) -> TicketClient:
        """The buyer of one worker, as it is made at each of its starts; its wallet is the one that it had before. What it does are `steps`."""
        wallet = steps.over("wallet", self.wallets.setdefault(name, FakeWallet()))
        http = httpx.AsyncClient(transport=steps.over("ticket_server", self._transport))
        return TicketClient(http, steps.over("signer", signer), self.clock, steps.over("ticket_payer", FakeTicketPayer(self, name)), wallet)

    async def invoice(
        self,
        amount_msat: Msat,
        description: str,
        expiry_s: int,
        preimage: bytes | None = None,
        ticket: tuple[EventId, Pubkey] | None = None,
    ) -> tuple[str, Digest]:
        """As `ports.tickets.InvoiceSource`."""
        assert ticket is not None
        preimage, now = preimage or self._entropy.draw(32), self.clock.now()
        payment_hash = Digest(hashlib.sha256(preimage).hexdigest())
        terms = Bolt11(
            currency="bcrt",
            payment_hash=payment_hash,
            payment_secret=self._entropy.draw(32).hex(),
            created_at=now,
            amount_msat=amount_msat,
            description=description,
            expiry_s=expiry_s,
        )
        text = encode_bolt11(terms, self._key.sign_recoverable)
        self.invoices[payment_hash] = TicketInvoice(
            text, amount_msat, UnixTime(now + expiry_s), preimage.hex(), ticket_label(*ticket, preimage.hex()[:8])
        )
        return text, payment_hash


class FakeTicketPayer:
    """`ports.tickets.PurchasePayer` of one worker, on the ledger."""

    def __init__(self, office: FakeTicketOffice, name: str) -> None:
        self._office, self._name = office, name

    async def pay(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """As the port: once; a second call tells how the first one ended."""
        await trio.lowlevel.checkpoint()
        office, ledger = self._office, self._office.ledger
        invoice = office.invoices[payment_hash]
        assert (invoice.bolt11, invoice.amount_msat) == (bolt11, amount_msat), "the buyer pays what it was asked for"
        if invoice.payer is None:
            if office.clock.now() >= invoice.expires or ledger.balances[self._name] < amount_msat:
                return PayResult(payment_hash, None)
            ledger.balances[self._name] = Msat(ledger.balances[self._name] - amount_msat)
            ledger.balances["coordinator"] = Msat(ledger.balances["coordinator"] + amount_msat)
            invoice.payer = self._name
            office.payments.append((self._name, payment_hash))
            ledger.book.take("coordinator", invoice.label, "", payment_hash, amount_msat)
        if office.lost_replies > 0:
            office.lost_replies -= 1
            raise OutcomeUnknown(f"payment {payment_hash[:8]}: the reply was lost")
        return PayResult(payment_hash, invoice.preimage)

    async def ended(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """As the port: a payment here has happened at once, or will not."""
        await trio.lowlevel.checkpoint()
        invoice = self._office.invoices[payment_hash]
        return PayResult(payment_hash, invoice.preimage if invoice.payer == self._name else None)


@dataclass
class FakeWallet:
    """`ports.tickets.TicketWallet` in memory."""

    purchases: dict[EventId, Purchase] = field(default_factory=dict)

    async def load(self, announcement: EventId) -> Purchase | None:
        """As the port."""
        return self.purchases.get(announcement)

    async def save(self, purchase: Purchase) -> None:
        """As the port."""
        self.purchases[purchase.announcement] = purchase

    async def forget(self, announcement: EventId) -> None:
        """As the port."""
        self.purchases.pop(announcement, None)


class FaultyTransport(httpx.AsyncBaseTransport):
    """HTTP to an application in this process; a request may get lost on its way, or its answer."""

    def __init__(self, app: ASGIApp, rng: random.Random, unavailable: float) -> None:
        self._inner, self._rng, self._unavailable = httpx.ASGITransport(app), rng, unavailable

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As httpx has it."""
        if self._rng.random() < self._unavailable / 2:
            raise httpx.ConnectError("the request was lost: injected fault", request=request)
        response = await self._inner.handle_async_request(request)
        if self._rng.random() < self._unavailable / 2:
            raise httpx.ReadError("the answer was lost: injected fault", request=request)
        return response
