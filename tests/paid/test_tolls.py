"""A blob server with a price list, and our own client: real HTTP, both ways to pay, money of the simnet."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nostrain.blobs.app import blossom_app
from nostrain.blobs.auth import make_header
from nostrain.blobs.client import BlossomClient
from nostrain.blobs.store import BlobStore
from nostrain.blobs.tuning import Tuning
from nostrain.daemon.clock import OsEntropy, SystemClock
from nostrain.daemon.tickets import NodeInvoices
from nostrain.errors import RemoteProtocolError, Unavailable
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


async def test_our_client_buys_a_blob_and_each_purchase_is_good_once(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open():
        await shop.stock()
        assert await shop.fetch() == DATA
        assert await shop.spent() == DOWNLOAD
        assert await shop.fetch() == DATA
        assert await shop.spent() == 2 * DOWNLOAD
        assert list((tmp_path / "tolls").iterdir()) == []


@pytest.mark.parametrize("without", [b"", b"www-authenticate", b"x-lightning"], ids=["both", "BUD-07", "L402"])
async def test_our_client_pays_for_an_upload_in_either_way(simnet: SimnetProcess, tmp_path: Path, without: bytes) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(without=without):
        with pytest.raises(RemoteProtocolError, match="the most that we pay"):
            await shop.send(Msat(UPLOAD - 1))
        assert await shop.spent() == 0
        await shop.send()
        assert await shop.spent() == UPLOAD
        path = shop.store.path(DIGEST)
        assert path is not None
        assert path.read_bytes() == DATA
        assert list((tmp_path / "tolls").iterdir()) == []


@pytest.mark.parametrize("without", [b"www-authenticate", b"x-lightning"], ids=["BUD-07", "L402"])
async def test_what_was_paid_for_before_a_restart_of_both_is_used_after_it(simnet: SimnetProcess, tmp_path: Path, without: bytes) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(without=without):
        await simnet.control("fault", kind="lose-reply", node="worker-1", method="sendpay", count=1)
        with pytest.raises(Unavailable):
            await shop.send()
    async with shop.open(without=without):
        await shop.send()
        assert await shop.spent() == UPLOAD


async def test_nothing_is_paid_above_the_ceiling(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open():
        await shop.stock()
        with pytest.raises(RemoteProtocolError, match="the most that we pay"):
            await shop.fetch(Msat(DOWNLOAD - 1))
        assert await shop.spent() == 0


async def test_a_lost_reply_to_the_payment_is_asked_for_and_not_paid_again(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open():
        await shop.stock()
        await simnet.control("fault", kind="lose-reply", node="worker-1", method="sendpay", count=1)
        assert await shop.fetch(attempts=2) == DATA, "asked for when the same source comes up again"
        assert await shop.spent() == DOWNLOAD


async def test_l402_and_bud_07_by_hand(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(), httpx.AsyncClient(trust_env=False) as http:
        await shop.stock()
        url = f"{shop.url}/{DIGEST}"
        preview = await http.head(url)
        token, preimage = await shop.pay(preview)
        assert (await http.get(f"{shop.url}/{'0' * 64}", headers={"Authorization": token})).status_code == 404
        assert (await http.get(url, headers={"Authorization": token})).content == DATA
        assert (await http.get(url, headers={"X-Lightning": preimage})).status_code == 409
        _, preimage = await shop.pay(await http.get(url))
        half = await http.get(url, headers={"X-Lightning": preimage, "Range": f"bytes=0-{len(DATA) // 2 - 1}"})
        rest = await http.get(url, headers={"X-Lightning": preimage, "Range": f"bytes={len(DATA) // 2}-"})
        assert half.content + rest.content == DATA
        assert half.headers["cache-control"].startswith("private")
        assert (await http.get(url, headers={"X-Lightning": preimage, "Range": "bytes=0-0"})).status_code == 409
        _, preimage = await shop.pay(await http.get(f"{shop.url}/list/{'a' * 64}"))
        assert (await http.get(f"{shop.url}/list/{'a' * 64}", headers={"X-Lightning": preimage})).json() == []
        assert (await http.get(f"{shop.url}/list/{'a' * 64}", headers={"X-Lightning": preimage})).status_code == 409
        assert await shop.spent() == 2 * DOWNLOAD + 1000


async def test_a_download_that_broke_off_is_not_used_up(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(), httpx.AsyncClient(trust_env=False) as http:
        await shop.stock()
        token, _ = await shop.pay(await http.get(f"{shop.url}/{DIGEST}"))
        stream = await trio.open_tcp_stream("127.0.0.1", int(shop.url.rpartition(":")[2]))
        async with stream:
            await stream.send_all(f"GET /{DIGEST} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n\r\n".encode())
            assert (await stream.receive_some(12)) == b"HTTP/1.1 200"
        again = await http.get(f"{shop.url}/{DIGEST}", headers={"Authorization": token})
        assert again.content == DATA
        assert await shop.spent() == DOWNLOAD


async def test_an_upload_that_broke_off_is_not_used_up_and_a_whole_one_is(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop, data = Shop(simnet, tmp_path), b"small" * 1000
    digest = Digest(sha256_hex(data))
    async with shop.open(), httpx.AsyncClient(trust_env=False) as http:
        signer, url = NostrSigner(RootSecret(b"customer".ljust(32))), f"{shop.url}/upload"
        identity = make_header(signer, verb="upload", digest=digest, host="127.0.0.1", now=shop.clock.now())
        headers = {"Authorization": identity, "X-SHA-256": digest}
        _, preimage = await shop.pay(await http.head(url, headers={**headers, "X-Content-Length": str(len(data))}))
        paid = {**headers, "X-Lightning": preimage}
        stream = await trio.open_tcp_stream("127.0.0.1", int(shop.url.rpartition(":")[2]))
        async with stream:
            head = "".join(f"{name}: {value}\r\n" for name, value in paid.items())
            await stream.send_all(f"PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n{head}\r\n".encode() + data[:500])
        wrong = await http.put(url, headers=paid, content=bytes(len(data)))
        assert (wrong.status_code, shop.store.path(digest)) == (409, None)
        assert "SHA-256" in wrong.headers["x-reason"]
        larger = await http.put(url, headers=paid, content=data + b"!")
        assert larger.status_code == 413
        assert (await http.put(url, headers=paid, content=data)).status_code == 201
        spent = await http.put(url, headers=paid, content=data)
        assert (spent.status_code, "used up" in spent.headers["x-reason"]) == (409, True)
        assert await shop.spent() == 1000


@pytest.mark.parametrize("header", ["Authorization: L402 " + "A" * 100_000, "X-Lightning: " + "0" * 100_000, "X: y\r\n" * 20_000])
async def test_huge_headers_end_their_own_connection_only(simnet: SimnetProcess, tmp_path: Path, header: str) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(), httpx.AsyncClient(trust_env=False) as http:
        digest = await shop.stock()
        stream = await trio.open_tcp_stream("127.0.0.1", int(shop.url.rpartition(":")[2]))
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(f"GET /{digest} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode())
                assert (await stream.receive_some(13))[:10] in (b"", b"HTTP/1.1 4")
        assert (await http.get(f"{shop.url}/{digest}")).status_code == 402


async def test_floods_are_429_before_an_invoice_is_made(simnet: SimnetProcess, tmp_path: Path) -> None:
    shop = Shop(simnet, tmp_path)
    async with shop.open(Rates(address=3)), httpx.AsyncClient(trust_env=False) as http:
        await shop.stock()
        found = [await http.get(f"{shop.url}/{DIGEST}") for _ in range(4)]
        assert [response.status_code for response in found] == [402] * 3 + [429]
        assert int(found[-1].headers["retry-after"]) <= 20
