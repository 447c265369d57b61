"""One ticket through everything that is real: HTTP server, paywall, buyer, wallet on disk, Core Lightning's protocol, the simnet's money."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

import httpx
import pytest
import trio

from nostrain.daemon.clock import OsEntropy, SystemClock
from nostrain.daemon.tickets import NodeInvoices
from nostrain.errors import OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.http.l402_client import TicketClient
from nostrain.http.l402_wallet import FileWallet
from nostrain.http.paywall import Paywall, paywall_app
from nostrain.http.server import serve
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.keys.tickets import DerivedTicketKeys
from nostrain.ports.tickets import Ticket
from nostrain.units import Msat
from tests.paid.conftest import FUNDS, SimnetProcess
from tests.paid.purchase import FEE, ROUND, RUN, SIZE, Book


class Shop:
    """A coordinator that sells, and worker-1 that buys."""

    def __init__(self, simnet: SimnetProcess) -> None:
        self.simnet, self.clock = simnet, SystemClock()
        self.worker = NostrSigner(RootSecret(sha256(b"worker").digest()))
        self.book = Book(self.worker.pubkey, self.clock.now())
        self.server = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        invoices = NodeInvoices(self.simnet.lightning("coordinator"), OsEntropy())
        keys = DerivedTicketKeys(RootSecret(sha256(b"coordinator").digest()))
        paywall = Paywall(self.book, invoices, keys, self.clock, OsEntropy())
        async with trio.open_nursery() as nursery:
            self.server = await nursery.start(serve, paywall_app(paywall), "127.0.0.1:0")
            yield
            nursery.cancel_scope.cancel()

    async def buy(self, ceiling: Msat = FEE) -> Ticket:
        """As a worker that was just started does it: nothing is remembered but the wallet's files."""
        async with httpx.AsyncClient(trust_env=False) as http:
            wallet = FileWallet(self.simnet.folder / "tickets")
            client = TicketClient(http, self.worker, self.clock, self.simnet.lightning("worker-1"), wallet)
            return await client.buy_ticket(self.server, RUN, ROUND, SIZE, ceiling)

    async def spent(self) -> int:
        """What worker-1 has paid: exactly what the coordinator has gained."""
        balances = await self.simnet.balances()
        spent = FUNDS["worker-1"] - balances["worker-1"]
        assert balances["coordinator"] - FUNDS["coordinator"] == spent
        return spent


async def test_a_ticket_is_bought_once(simnet: SimnetProcess) -> None:
    shop = Shop(simnet)
    async with shop.open():
        ticket = await shop.buy()
        assert await shop.spent() == FEE
        assert shop.book.sold == {shop.worker.pubkey: ticket}
        assert await shop.buy() == ticket
        assert await shop.spent() == FEE


async def test_a_lost_reply_to_the_payment_is_asked_for_and_not_paid_again(simnet: SimnetProcess) -> None:
    shop = Shop(simnet)
    async with shop.open():
        await simnet.control("fault", kind="lose-reply", node="worker-1", method="sendpay", count=1)
        with pytest.raises(OutcomeUnknown):
            await shop.buy()
        ticket = await shop.buy()
        assert await shop.spent() == FEE
        assert shop.book.sold == {shop.worker.pubkey: ticket}


async def test_a_part_that_fails_costs_nothing_and_is_tried_with_a_fresh_invoice(simnet: SimnetProcess) -> None:
    shop = Shop(simnet)
    async with shop.open():
        await simnet.control("fault", kind="fail-part", node="worker-1", count=1)
        with pytest.raises(Unavailable, match="the money is back"):
            await shop.buy()
        assert await shop.spent() == 0
        await shop.buy()
        assert await shop.spent() == FEE


async def test_a_crashed_node_of_the_seller(simnet: SimnetProcess) -> None:
    shop = Shop(simnet)
    async with shop.open():
        await simnet.control("fault", kind="crash", node="coordinator")
        with pytest.raises(Unavailable):
            await shop.buy()
        await simnet.control("fault", kind="start", node="coordinator")
        await shop.buy()
        assert await shop.spent() == FEE


async def test_too_dear_is_not_paid(simnet: SimnetProcess) -> None:
    shop = Shop(simnet)
    async with shop.open():
        with pytest.raises(RemoteProtocolError, match="the most that we pay"):
            await shop.buy(Msat(FEE - 1))
        assert await shop.spent() == 0
