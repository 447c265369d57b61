"""A blob server that asks for money, with nodes that pay and are paid."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nostrain.blobs.app import blossom_app
from nostrain.blobs.client import BlossomClient
from nostrain.blobs.store import BlobStore
from nostrain.blobs.tuning import Tuning
from nostrain.daemon.clock import OsEntropy, SystemClock
from nostrain.daemon.tickets import NodeInvoices
from nostrain.hashes import sha256_hex
from nostrain.http.first_use import SqliteFirstUse
from nostrain.http.l402_wallet import TollFiles
from nostrain.http.rates import RateLimit, Rates
from nostrain.http.server import serve
from nostrain.http.toll_client import TollPurse
from nostrain.http.tollgate import Price, Tollgate
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.keys.tickets import DerivedTicketKeys
from nostrain.ports.tolls import Route
from nostrain.units import Digest, Msat, Pubkey
from nostrain.wire.bolt11 import parse_bolt11_untrusted
from nostrain.wire.l402 import format_authorization, parse_challenges_untrusted
from tests.paid.conftest import FUNDS, SimnetProcess

DATA = bytes(range(256)) * 12_000
DIGEST = Digest(sha256_hex(DATA))
PRICES: dict[Route, Price] = {"download": Price(1000, 2000), "upload": Price(0, 1000), "list": Price(1000)}
DOWNLOAD, UPLOAD = Msat(8000), Msat(4000)


class Anyone:
    def allow(self, pubkey: Pubkey, digest: Digest, size: int) -> str | None:
        return None


class Without:
    """A server whose 402 offers no more than one kind of payment."""

    def __init__(self, app: ASGIApp, header: bytes) -> None:
        self._app, self._header = app, header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def less(message: Message) -> None:
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() != self._header]
            await send({**message, "headers": kept} if message["type"] == "http.response.start" else message)

        await self._app(scope, receive, less)


class Shop:
    """The coordinator's node sells; worker-1 buys."""

    url: str
    store: BlobStore

    def __init__(self, simnet: SimnetProcess, folder: Path) -> None:
        self.simnet, self.folder, self.clock, self.customers = simnet, folder, SystemClock(), 0
        self.bind = "127.0.0.1:0"

    @asynccontextmanager
    async def open(self, rates: Rates | None = None, without: bytes = b"") -> AsyncIterator[None]:
        uses = SqliteFirstUse(self.folder / "payments.sqlite", self.clock)
        keys = DerivedTicketKeys(RootSecret(b"shop".ljust(32)))
        invoices = NodeInvoices(self.simnet.lightning("coordinator"), OsEntropy())
        tolls = Tollgate(PRICES, invoices, keys, self.clock, OsEntropy(), uses)
        self.store = BlobStore(self.folder / "shop", self.clock)
        app = Without(RateLimit(blossom_app(self.store, Anyone(), self.clock, tolls=tolls), rates or Rates()), without)
        async with trio.open_nursery() as nursery:
            self.url = await nursery.start(serve, app, self.bind)
            self.bind = self.url.removeprefix("http://")
            yield
            nursery.cancel_scope.cancel()
        self.store.close()
        uses.close()

    async def stock(self, data: bytes = DATA) -> Digest:
        """Have a blob for sale."""
        path, digest = self.folder / "stock", Digest(sha256_hex(data))
        path.write_bytes(data)
        await self.store.adopt(path, digest)
        return digest

    @asynccontextmanager
    async def customer(self, ceiling: Msat = DOWNLOAD, attempts: int = 1) -> AsyncIterator[BlossomClient]:
        """A client that was just started with an empty store: nothing is remembered but its purchases."""
        self.customers += 1
        store = BlobStore(self.folder / f"customer-{self.customers}", self.clock)
        purse = TollPurse(self.simnet.lightning("worker-1"), TollFiles(self.folder / "tolls"), ceiling)
        signer = NostrSigner(RootSecret(b"customer".ljust(32)))
        async with BlossomClient(store, [self.url], signer, self.clock, purse=purse, tuning=Tuning(attempts, backoff=0.001)) as client:
            yield client
        store.close()

    async def fetch(self, ceiling: Msat = DOWNLOAD, attempts: int = 1) -> bytes:
        async with self.customer(ceiling, attempts) as client:
            return (await client.get(DIGEST, [f"{self.url}/{DIGEST}"], len(DATA))).read_bytes()

    async def send(self, ceiling: Msat = DOWNLOAD) -> None:
        path = self.folder / "sent"
        path.write_bytes(DATA)
        async with self.customer(ceiling) as client:
            await client.put(path, DIGEST)

    async def spent(self) -> int:
        """What worker-1 has paid: exactly what the coordinator has gained."""
        balances = await self.simnet.balances()
        spent = FUNDS["worker-1"] - balances["worker-1"]
        assert balances["coordinator"] - FUNDS["coordinator"] == spent
        return spent

    async def pay(self, response: httpx.Response) -> tuple[str, str]:
        """Pay a 402 by hand: the value of Authorization, and of X-Lightning."""
        assert response.status_code == 402
        challenge = parse_challenges_untrusted(response.headers.get_list("www-authenticate"))
        assert response.headers["x-lightning"] == challenge.invoice
        terms = parse_bolt11_untrusted(challenge.invoice)
        assert terms.amount_msat is not None
        result = await self.simnet.lightning("worker-1").pay(challenge.invoice, terms.payment_hash, Msat(terms.amount_msat))
        assert result.preimage is not None
        return format_authorization(challenge.text, result.preimage), result.preimage
