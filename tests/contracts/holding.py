"""Payments that run while a test holds, settles and cancels them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio

from nostrain.errors import OutcomeUnknown
from nostrain.ports.lightning import HoldState, HoldUpdate, Lightning, PayResult
from nostrain.units import Digest, Msat
from tests.contracts.lightning_worlds import World

PATIENCE_S = 60
AMOUNT = Msat(10_000_000)
CLTV = 144

Secret = Callable[[], tuple[str, Digest]]


@asynccontextmanager
async def following(node: Lightning, payment_hash: Digest) -> AsyncIterator[Callable[[HoldState], Any]]:
    """A function that waits for a state of one hold invoice, within the test's patience."""
    with trio.fail_after(PATIENCE_S):
        async with node.holds() as updates:

            async def until(state: HoldState) -> HoldUpdate:
                async for update in updates:
                    if update.payment_hash == payment_hash and update.state is state:
                        return update
                raise AssertionError("the updates ended")

            yield until


@asynccontextmanager
async def paying(world: World, bolt11: str, payment_hash: Digest, *, times: int = 1) -> AsyncIterator[list[PayResult | OutcomeUnknown]]:
    """Payments that run meanwhile; their results are in the list when the block is left."""
    results: list[PayResult | OutcomeUnknown] = []

    async def pay() -> None:
        try:
            results.append(await world.payer.pay(bolt11, payment_hash, AMOUNT))
        except OutcomeUnknown as error:
            results.append(error)

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for _ in range(times):
                nursery.start_soon(pay)
            yield results


async def both(world: World) -> tuple[int, int]:
    return await world.balance("payer"), await world.balance("payee")
