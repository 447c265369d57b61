"""A held HTLC over two channels: escrows use direct ones where there are any, and where there are none the payment is still one."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from nostrain.devnet.regtest.lightningd import MAINNET_LIKE, Lightningd
from nostrain.devnet.regtest.network import RegtestNetwork, running
from nostrain.devnet.regtest.plugins import write_hold_plugin
from nostrain.errors import OutcomeUnknown
from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import HoldState, PayResult
from nostrain.units import Digest, Msat
from tests.regtest.hold_world import Bill, slow

AMOUNT = Msat(10_000_000)
CLTV = 80
PATIENCE_S = 90


def client(socket: Path) -> ClnLightning:
    return ClnLightning(socket, hold_poll_s=0.05)


async def parts(node: Lightningd, payment_hash: str) -> list[str]:
    """What the payer's node lists of a payment."""
    return [part["status"] for part in (await node.ask("listsendpays", payment_hash=payment_hash))["payments"]]


@asynccontextmanager
async def over_a_router() -> AsyncIterator[RegtestNetwork]:
    """Alice and bob have a channel with the router each, and none with one another."""
    with tempfile.TemporaryDirectory(prefix="nr", dir="/tmp") as made:
        folder = Path(made)
        funds = {"router": Msat(2_000_000_000), "alice": Msat(500_000_000), "bob": Msat(500_000_000)}
        settings = msgspec.structs.replace(MAINNET_LIKE, plugins=(write_hold_plugin(folder),))
        async with running(folder, funds, settings) as network:
            yield network


@slow
async def test_a_payment_over_a_router_is_held_joined_and_settled_once() -> None:
    async with over_a_router() as network:
        alice, bob, bill = client(network.nodes["alice"].socket), client(network.nodes["bob"].socket), Bill.draw()
        payment_hash = Digest(bill.payment_hash)
        bolt11 = await bob.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
        results: list[PayResult | OutcomeUnknown] = []

        async def pay() -> None:
            try:
                results.append(await alice.pay(bolt11, payment_hash, AMOUNT))
            except OutcomeUnknown as error:
                results.append(error)

        with trio.fail_after(PATIENCE_S):
            async with bob.holds() as updates:
                async with trio.open_nursery() as nursery:
                    for _ in range(2):
                        nursery.start_soon(pay)
                    async for update in updates:
                        if update.payment_hash == payment_hash and update.state is HoldState.ACCEPTED:
                            break
                    assert update.cltv_expiry is not None
                    assert update.cltv_expiry >= await bob.block_height() + CLTV
                    await network.crash("alice")
                assert [type(result) for result in results] == [OutcomeUnknown] * 2
                await network.restart("alice")
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(pay)
                    await bob.settle(bill.preimage)
        assert results[2:] == [PayResult(payment_hash, bill.preimage)]
        assert await parts(network.nodes["alice"], payment_hash) == ["complete"]
        balances = await network.balances()
        assert balances["bob"].balance_msat == 500_000_000 + AMOUNT, "once"
        assert balances["alice"].balance_msat < 500_000_000 - AMOUNT, "and the router has its fee"
