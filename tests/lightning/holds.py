"""Our client on a node of the simnet, and one hold invoice there."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import trio

from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import HoldState
from nostrain.units import Digest, Msat
from tests.simnet.conftest import PATIENCE_S, World

Call = Callable[[ClnLightning], Awaitable[object]]
AMOUNT = Msat(10_000_000)
PREIMAGE = "42" * 32
HASH = Digest(hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest())


def client(world: World, name: str, *, timeout_s: float = PATIENCE_S) -> ClnLightning:
    return ClnLightning(world.path(name), hold_poll_s=0.01, timeout_s=timeout_s)


async def accepted(payee: ClnLightning) -> None:
    """Return when a hold invoice of this node is accepted."""
    with trio.fail_after(PATIENCE_S):
        async with payee.holds() as updates:
            async for update in updates:
                if update.state is HoldState.ACCEPTED:
                    return
