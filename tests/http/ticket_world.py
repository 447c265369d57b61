"""A paywall with everything around it in memory: book, invoices, keys, clock; and workers that can ask."""

from __future__ import annotations

from hashlib import sha256

import httpx
from coincurve import PrivateKey
from starlette.types import ASGIApp

from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.hashes import tagged_hash
from nostrain.http.l402_identity import HEADER, make_identity
from nostrain.http.paywall import Paywall, PaywallLimits, paywall_app
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.ports.lightning import PayResult
from nostrain.ports.tickets import Purchase, Ticket, TicketTerms
from nostrain.testing.entropy import SeededEntropy
from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime
from nostrain.wire.bolt11 import Bolt11, encode_bolt11
from nostrain.wire.l402 import Challenge, format_authorization, parse_challenges_untrusted

SERVER = "http://tickets.test:8402"
RUN = EventId("11" * 32)
ROUND = EventId("22" * 32)
NEXT_ROUND = EventId("33" * 32)
UNKNOWN_ROUND = EventId("44" * 32)
START = UnixTime(1_800_000_000)
FEE = Msat(200_000)
SIZE = 50_000
MAX_SIZE = 100_000


class SetClock:
    """Shows what it was set to."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> UnixTime:
        return self.time

    async def sleep_until(self, when: UnixTime) -> None:
        self.time = max(self.time, when)


class Keys:
    """Ticket keys of one server."""

    def __init__(self, name: str = "server") -> None:
        self._name = name

    def ticket_key(self, token: bytes) -> bytes:
        return tagged_hash("test/ticket", self._name.encode(), token)


class Book:
    """Terms and sold tickets, in memory. `failing` makes the next recording fail."""

    def __init__(self, workers: frozenset[Pubkey]) -> None:
        terms = TicketTerms(RUN, FEE, MAX_SIZE, workers, UnixTime(START + 300), UnixTime(START + 600))
        self.rounds = {ROUND: terms, NEXT_ROUND: terms}
        self.tickets: dict[tuple[EventId, Pubkey], Ticket] = {}
        self.failing = False

    def terms(self, announcement: EventId) -> TicketTerms | None:
        return self.rounds.get(announcement)

    def held(self, announcement: EventId, worker: Pubkey) -> Ticket | None:
        return self.tickets.get((announcement, worker))

    async def redeem(self, ticket: Ticket) -> Ticket:
        if self.failing:
            self.failing = False
            raise Unavailable("the disk is full")
        return self.tickets.setdefault((ticket.announcement, ticket.worker), ticket)


def bolt11(payment_hash: str, amount_msat: Msat | None) -> str:
    """An invoice by some node."""
    terms = Bolt11(
        currency="bcrt",
        payment_hash=Digest(payment_hash),
        payment_secret="ab" * 32,
        created_at=START,
        amount_msat=amount_msat,
        description="a ticket",
    )
    return encode_bolt11(terms, PrivateKey(b"\x01" * 32).sign_recoverable)


class Node:
    """A Lightning node for both sides: makes invoices, and pays them once. `fails` and `lost` say how the next payments go wrong."""

    def __init__(self) -> None:
        self.preimages: dict[str, str] = {}
        self.invoices: list[str] = []
        self.expiries: list[int] = []
        self.paid: dict[Digest, str] = {}
        self.fails = self.lost = 0
        self.down = False

    async def invoice(
        self,
        amount_msat: Msat,
        description: str,
        expiry_s: int,
        preimage: bytes | None = None,
        ticket: tuple[EventId, Pubkey] | None = None,
    ) -> tuple[str, Digest]:
        if self.down:
            raise Unavailable("lightningd is not there")
        preimage = preimage or sha256(f"preimage {len(self.invoices)}".encode()).digest()
        payment_hash = Digest(sha256(preimage).hexdigest())
        text = bolt11(payment_hash, amount_msat)
        self.preimages[payment_hash] = preimage.hex()
        self.invoices.append(text)
        self.expiries.append(expiry_s)
        return text, payment_hash

    async def pay(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        if self.fails:
            self.fails -= 1
            return PayResult(payment_hash, None)
        assert bolt11 in self.invoices
        self.paid[payment_hash] = bolt11
        if self.lost:
            self.lost -= 1
            raise OutcomeUnknown("the reply was lost")
        return PayResult(payment_hash, self.preimages[payment_hash])

    async def ended(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        assert bolt11 in self.invoices
        return PayResult(payment_hash, self.preimages[payment_hash] if payment_hash in self.paid else None)


class Wallet:
    """Purchases in memory; `crash_at` counts saves down to one after which the process dies."""

    def __init__(self) -> None:
        self.saved: dict[EventId, Purchase] = {}
        self.crash_at = 0

    async def load(self, announcement: EventId) -> Purchase | None:
        return self.saved.get(announcement)

    async def save(self, purchase: Purchase) -> None:
        self.saved[purchase.announcement] = purchase
        self.crash_at -= 1
        if self.crash_at == 0:
            raise Crash

    async def forget(self, announcement: EventId) -> None:
        self.saved.pop(announcement, None)


class Crash(Exception):
    """The process ends here."""


class World:
    """One server, two workers of its rounds and a stranger."""

    def __init__(self, limits: PaywallLimits | None = None) -> None:
        self.clock, self.node, self.keys = SetClock(), Node(), Keys()
        self.alice, self.bob, self.stranger = (NostrSigner(RootSecret(sha256(name).digest())) for name in (b"alice", b"bob", b"stranger"))
        self.book = Book(frozenset({self.alice.pubkey, self.bob.pubkey}))
        self.entropy = SeededEntropy(0, "paywall")
        self.paywall = Paywall(self.book, self.node, self.keys, self.clock, self.entropy, public_url=SERVER, limits=limits)
        self.http = self.client(paywall_app(self.paywall))

    @staticmethod
    def client(app: ASGIApp) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app))

    def url(self, announcement: str = ROUND, size: int | str = SIZE) -> str:
        return f"{SERVER}/ticket?announcement={announcement}&size={size}"

    async def ask(
        self, signer: NostrSigner | None = None, *, url: str | None = None, token: str | None = None, **headers: str
    ) -> httpx.Response:
        url = url or self.url()
        sent = {HEADER: make_identity(signer or self.alice, "POST", url, self.clock.now())} | headers
        if token is not None:
            sent["Authorization"] = token
        return await self.http.post(url, headers=sent)

    async def challenge(self, signer: NostrSigner | None = None, *, url: str | None = None) -> Challenge:
        response = await self.ask(signer, url=url)
        assert response.status_code == 402
        return parse_challenges_untrusted(response.headers.get_list("www-authenticate"))

    async def pay(self, challenge: Challenge) -> str:
        """Pay, and make the header that shows it."""
        result = await self.node.pay(challenge.invoice, Digest(challenge.identifier.payment_hash.hex()), FEE)
        assert result.preimage is not None
        return format_authorization(challenge.text, result.preimage)

    async def bought(self, signer: NostrSigner | None = None, *, url: str | None = None) -> str:
        return await self.pay(await self.challenge(signer, url=url))
