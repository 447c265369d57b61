"""A ticket from its purchase to the upload that it pays for: real HTTP, real Blossom client and server, money of the simnet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import trio

from nostrain.blobs.app import blossom_app
from nostrain.blobs.auth import IDENTITY, make_header
from nostrain.blobs.client import BlossomClient
from nostrain.blobs.store import BlobStore
from nostrain.blobs.tuning import Tuning
from nostrain.daemon.clock import OsEntropy, SystemClock
from nostrain.daemon.tickets import NodeInvoices, RunTolls
from nostrain.daemon.uploads import RunUploads
from nostrain.errors import RemoteProtocolError
from nostrain.hashes import sha256_hex
from nostrain.http.first_use import SqliteFirstUse
from nostrain.http.l402_client import TicketClient
from nostrain.http.l402_wallet import FileWallet
from nostrain.http.paywall import Paywall, paywall_app
from nostrain.http.server import serve
from nostrain.http.ticket_gate import TicketGate
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.keys.tickets import DerivedTicketKeys
from nostrain.ports.tolls import NoTolls
from nostrain.units import Digest, EventId, Pubkey
from tests.paid.conftest import SimnetProcess
from tests.paid.purchase import FEE, ROUND, RUN, SIZE, Book

DELTA = b"delta" * 1000
DIGEST = Digest(sha256_hex(DELTA))


class OneRound(RunUploads):
    """Everybody may upload, on the ticket of ROUND."""

    def uninvited(self, pubkey: Pubkey, digest: Digest, size: int) -> str | None:
        return None

    def ticketed(self, pubkey: Pubkey) -> EventId | None:
        return ROUND


class Net:
    """A coordinator's server, and worker-1 with its client."""

    server: str
    tickets: TicketClient
    client: BlossomClient
    http: httpx.AsyncClient

    def __init__(self, simnet: SimnetProcess, folder: Path) -> None:
        self.simnet, self.folder, self.clock = simnet, folder, SystemClock()
        self.worker = NostrSigner(RootSecret(sha256(b"worker").digest()))
        self.book = Book(self.worker.pubkey, self.clock.now())

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        keys = DerivedTicketKeys(RootSecret(sha256(b"coordinator").digest()))
        paywall = Paywall(self.book, NodeInvoices(self.simnet.lightning("coordinator"), OsEntropy()), keys, self.clock, OsEntropy())
        uses = SqliteFirstUse(self.folder / "payments.sqlite", self.clock)
        tolls = RunTolls(OneRound(Pubkey("1" * 64), None), TicketGate(paywall, self.book, keys, self.clock, uses), NoTolls())
        stores = [BlobStore(self.folder / name, self.clock) for name in ("server", "worker")]
        app = paywall_app(paywall, blossom_app(stores[0], OneRound(Pubkey("1" * 64), None), self.clock, tolls=tolls))
        async with trio.open_nursery() as nursery, httpx.AsyncClient(trust_env=False) as self.http:
            self.server = await nursery.start(serve, app, "127.0.0.1:0")
            wallet = FileWallet(self.folder / "tickets")
            self.tickets = TicketClient(self.http, self.worker, self.clock, self.simnet.lightning("worker-1"), wallet)
            tuning = Tuning(attempts=1)
            async with BlossomClient(stores[1], [self.server], self.worker, self.clock, tickets=self.tickets, tuning=tuning) as self.client:
                yield
            nursery.cancel_scope.cancel()
        uses.close()
        for store in stores:
            store.close()

    def delta(self, data: bytes = DELTA) -> tuple[Path, Digest]:
        path = self.folder / sha256_hex(data)
        path.write_bytes(data)
        return path, Digest(sha256_hex(data))

    def headers(self, authorization: str | None, digest: Digest = DIGEST) -> dict[str, str]:
        found = {
            "X-SHA-256": digest,
            IDENTITY: make_header(self.worker, verb="upload", digest=digest, host="127.0.0.1", now=self.clock.now()),
        }
        return found if authorization is None else found | {"Authorization": authorization}


async def test_the_ticket_pays_for_one_delta(simnet: SimnetProcess, tmp_path: Path) -> None:
    net = Net(simnet, tmp_path)
    async with net.open():
        with pytest.raises(RemoteProtocolError, match="HTTP 402"):
            await net.client.put(*net.delta(), ticket=ROUND)
        await net.tickets.buy_ticket(net.server, RUN, ROUND, SIZE, FEE)
        assert await net.client.put(*net.delta(), ticket=ROUND) == (f"{net.server}/{DIGEST}",)
        assert await net.client.put(*net.delta(), ticket=ROUND) == (f"{net.server}/{DIGEST}",)
        with pytest.raises(RemoteProtocolError, match="HTTP 409"):
            await net.client.put(*net.delta(b"another"), ticket=ROUND)
        with pytest.raises(RemoteProtocolError, match="HTTP 401"):
            await net.client.put(*net.delta(b"without"))
        assert (await net.http.get(f"{net.server}/{DIGEST}")).content == DELTA


async def test_an_upload_that_broke_off_is_tried_again_on_the_same_ticket(simnet: SimnetProcess, tmp_path: Path) -> None:
    net = Net(simnet, tmp_path)
    async with net.open():
        await net.tickets.buy_ticket(net.server, RUN, ROUND, SIZE, FEE)
        token = await net.tickets.show_ticket(ROUND, net.server, DIGEST)
        wrong = await net.http.put(f"{net.server}/upload", headers=net.headers(token), content=b"x" * len(DELTA))
        assert wrong.status_code == 409
        assert "SHA-256" in wrong.headers["x-reason"]
        assert (await net.http.put(f"{net.server}/upload", headers=net.headers(token), content=DELTA)).status_code == 201
        assert (await net.http.put(f"{net.server}/upload", headers=net.headers(token), content=DELTA)).status_code == 200


async def test_two_headers_of_one_kind_are_400(simnet: SimnetProcess, tmp_path: Path) -> None:
    net = Net(simnet, tmp_path)
    async with net.open():
        await net.tickets.buy_ticket(net.server, RUN, ROUND, SIZE, FEE)
        token = await net.tickets.show_ticket(ROUND, net.server, DIGEST)
        assert token is not None
        for doubled in ([("Authorization", token)] * 2, [("X-Lightning", "00" * 32)] * 2):
            headers = [*net.headers(None).items(), *doubled]
            assert (await net.http.put(f"{net.server}/upload", headers=headers, content=DELTA)).status_code == 400
