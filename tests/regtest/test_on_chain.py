"""A channel of real nodes that is closed by force while it carries an HTLC that bob holds: what our client and the hold plugin say meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from nostrain.devnet.regtest.lightningd import Lightningd
from nostrain.devnet.regtest.network import MSAT_PER_SAT, SPARE_SAT
from nostrain.devnet.regtest.programs import missing
from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import HoldState, PayResult
from nostrain.units import Digest, Msat
from tests.regtest.hold_world import AMOUNT, CLTV, FUNDS, Bill, World, slow, until, world

pytestmark = [pytest.mark.regtest, pytest.mark.timeout(240), slow]
if missing():
    pytestmark.append(pytest.mark.skip(reason=f"not on PATH: {', '.join(missing())}"))

EXPIRY_S = 3600
CANCEL_BLOCKS = 24
"""So long before the HTLC expires the plugin gives it back."""
PATIENCE_S = 120
COINS_SAT = 100_000
NO_COINS = "We want to bump HTLC fee, but no funds!"


def client(node: Lightningd) -> ClnLightning:
    return ClnLightning(node.socket, hold_poll_s=0.05)


async def parts(node: Lightningd, payment_hash: str) -> list[str]:
    """What the payer's node lists of a payment."""
    return [part["status"] for part in (await node.ask("listsendpays", payment_hash=payment_hash))["payments"]]


async def says(node: Lightningd, line: str) -> bool:
    """Whether that is in a node's log."""
    return line in node.log.read_text(errors="replace")


async def mined(here: World) -> None:
    """Wait until a node sends something to the chain, and mine it."""
    await until(lambda: here.network.bitcoind.ask("getrawmempool"))
    await here.network.mine(1)


async def closed_by_force(here: World, bill: Bill, closer: Lightningd, other: Lightningd) -> int:
    """Bob holds, and then the closer's side of the channel is on the chain with the HTLC in it; when the HTLC expires."""
    await here.held(bill)
    (htlc,) = [htlc for channel in await here.alice.channels() for htlc in channel["htlcs"]]
    await closer.ask("close", id=other.id, unilateraltimeout=1)
    await mined(here)

    async def on_chain() -> bool:
        states = [channel["state"] for node in (here.alice, here.bob) for channel in await node.channels()]
        return states == ["ONCHAIN"] * 2

    await until(on_chain)
    return int(htlc["expiry"])


async def coins(node: Lightningd) -> int:
    """What a node's wallet has on the chain, confirmed, in msat."""
    return sum(int(output["amount_msat"]) for output in (await node.ask("listfunds"))["outputs"] if output["status"] == "confirmed")


async def claimed(here: World) -> bool:
    """Whether bob has his side and the HTLC, less a fee, in his wallet."""
    return FUNDS["bob"] + AMOUNT // 2 < await coins(here.bob) <= FUNDS["bob"] + AMOUNT


async def all_but_fees(here: World) -> bool:
    """Whether alice has everything in her wallet again, and what the chain has cost is less than the HTLC; mines a block if not."""
    back = await coins(here.alice) > FUNDS["alice"] + SPARE_SAT * MSAT_PER_SAT - AMOUNT
    if not back:
        await here.network.mine(1)
    return back


@asynccontextmanager
async def paying(here: World) -> AsyncIterator[tuple[Bill, list[PayResult]]]:
    """A payment of alice's client that is held by bob's; its result is there when the block is left."""
    bill, results = Bill.draw(), list[PayResult]()
    payment_hash = Digest(bill.payment_hash)
    bolt11 = await client(here.bob).hold_invoice(payment_hash, Msat(AMOUNT), CLTV, EXPIRY_S)

    async def pay() -> None:
        results.append(await client(here.alice).pay(bolt11, payment_hash, Msat(AMOUNT)))

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pay)
            yield bill, results


async def test_a_preimage_that_is_known_in_time_is_taken_to_the_chain() -> None:
    async with world() as here:
        async with paying(here) as (bill, results):
            await closed_by_force(here, bill, here.alice, here.bob)
            assert (await here.hold(bill))["state"] == HoldState.ACCEPTED.value
            await client(here.bob).settle(bill.preimage)
            assert not results, "alice knows nothing before it is on the chain"
            await mined(here)
        assert results == [PayResult(Digest(bill.payment_hash), bill.preimage)]
        assert await parts(here.alice, bill.payment_hash) == ["complete"]
        await here.held(bill, HoldState.PAID.value)
        await until(lambda: claimed(here))


async def test_a_payee_that_closes_can_claim_only_with_coins_in_its_wallet() -> None:
    async with world() as here:
        async with paying(here) as (bill, results):
            await closed_by_force(here, bill, here.bob, here.alice)
            assert (await here.hold(bill))["state"] == HoldState.ACCEPTED.value
            await client(here.bob).settle(bill.preimage)
            await until(lambda: says(here.bob, NO_COINS))
            assert not await here.network.bitcoind.ask("getrawmempool")
            assert not results
            address = (await here.bob.ask("newaddr", addresstype="p2tr"))["p2tr"]
            await here.network.bitcoind.pay([(address, COINS_SAT)])
            while not results:
                await here.network.mine(1)
        assert results == [PayResult(Digest(bill.payment_hash), bill.preimage)]
        await here.held(bill, HoldState.PAID.value)


async def test_what_is_not_settled_comes_back_from_the_chain_after_its_expiry() -> None:
    async with world() as here:
        async with paying(here) as (bill, results):
            expiry = await closed_by_force(here, bill, here.alice, here.bob)
            await here.network.mine(expiry - CANCEL_BLOCKS - await here.network.bitcoind.height())
            await here.held(bill, HoldState.CANCELLED.value)
            assert await parts(here.alice, bill.payment_hash) == ["pending"]
            assert not results, "cancelled is not back: the HTLC is on the chain"
            await here.network.mine(expiry - 1 - await here.network.bitcoind.height())
            assert not results, "it could still be claimed"
            while not results:
                await here.network.mine(1)
        assert results == [PayResult(Digest(bill.payment_hash), None)]
        assert await parts(here.alice, bill.payment_hash) == ["failed"]
        assert await coins(here.bob) == FUNDS["bob"]
        await until(lambda: all_but_fees(here))
