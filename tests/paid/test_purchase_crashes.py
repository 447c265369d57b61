"""A buyer that dies between any two steps of a purchase: HTTP requests, its node's calls, its wallet's files. It has its ticket, and has paid once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
import trio

from nostrain.daemon.clock import OsEntropy, SystemClock
from nostrain.daemon.tickets import NodeInvoices
from nostrain.http.l402_client import TicketClient
from nostrain.http.l402_wallet import FileWallet
from nostrain.http.paywall import Paywall, paywall_app
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.keys.tickets import DerivedTicketKeys
from nostrain.lightning.client import ClnLightning
from nostrain.ports.tickets import Ticket
from nostrain.testing.steps import Death, Step
from tests.lightning.dying import Mortal, every_death
from tests.paid.purchase import FEE, ROUND, RUN, SIZE, Book
from tests.simnet.conftest import PATIENCE_S, World

SELLER, BUYER = "c", "w"
SERVER = "http://seller.test"
STEPS = {
    *((port, method) for port, method in (("server", "handle_async_request"), ("wallet", "load"), ("wallet", "save"))),
    *(("rpc", method) for method in ("getinfo", "listpeerchannels", "listsendpays", "sendpay")),
}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, c=2_000_000_000, w=50_000_000)
    async with trio.open_nursery() as nursery:
        await nursery.start(world.simnet.run)
        yield world
        world.network.check()
        nursery.cancel_scope.cancel()


class Purchase:
    """One ticket, bought by somebody who may die."""

    def __init__(self, world: World, folder: Path, *deaths: Death) -> None:
        self.world, self.folder, self.clock = world, folder, SystemClock()
        self.buyer = Mortal(world.path(BUYER), *deaths)
        self.key = NostrSigner(RootSecret(sha256(b"worker").digest()))
        self.book = Book(self.key.pubkey, self.clock.now())
        keys = DerivedTicketKeys(RootSecret(sha256(b"coordinator").digest()))
        paywall = Paywall(
            self.book, NodeInvoices(ClnLightning(world.path(SELLER)), OsEntropy()), keys, self.clock, OsEntropy(), public_url=SERVER
        )
        self.transport = httpx.ASGITransport(paywall_app(paywall))

    async def buy(self, lightning: ClnLightning) -> Ticket:
        """As a worker that was just started does it."""
        over = self.buyer.steps.over
        http, wallet = httpx.AsyncClient(transport=over("server", self.transport)), over("wallet", FileWallet(self.folder))
        return await TicketClient(http, self.key, self.clock, lightning, wallet).buy_ticket(SERVER, RUN, ROUND, SIZE, FEE)

    async def run(self) -> None:
        """Buy until it is bought; then the ledger and the seller's book say so, and nothing more."""
        channel = next(channel for channel in self.world.network.channels if BUYER in channel.ends)
        before = channel.to_us[BUYER]
        with trio.fail_after(PATIENCE_S):
            ticket = await self.buyer.insist(self.buy)
        assert self.book.sold == {self.key.pubkey: ticket}
        assert channel.to_us[BUYER] == before - FEE
        assert not channel.htlcs
        paid = [payment for payment in self.world.network.nodes[BUYER].payments if payment.payment_hash == ticket.payment_hash]
        assert [payment.status for payment in paid] == ["complete"]


async def test_a_death_between_any_two_steps(world: World, tmp_path: Path) -> None:
    whole = Purchase(world, tmp_path / "whole")
    await whole.run()
    assert {(step.port, step.method) for step in whole.buyer.steps.taken} == STEPS
    for number, death in enumerate(every_death(whole.buyer.steps, BUYER)):
        purchase = Purchase(world, tmp_path / str(number), death)
        await purchase.run()
        assert purchase.buyer.deaths == 1, death


async def test_a_death_while_a_payment_that_failed_is_forgotten(world: World, tmp_path: Path) -> None:
    """The part fails on its way: the wallet forgets that invoice and buys on another one, wherever the buyer dies meanwhile."""
    for nth, at in ((1, "before"), (1, "after"), (2, "before")):
        world.network.nodes[BUYER].faults.fail_parts = 1
        step = Step("wallet", "forget" if nth == 1 else "save", at)  # type: ignore[arg-type]
        purchase = Purchase(world, tmp_path / f"{nth}-{at}", Death(BUYER, step, nth))
        await purchase.run()
        assert purchase.buyer.deaths == 1
        assert purchase.buyer.steps.taken[Step("wallet", "forget", "after")] >= 1
