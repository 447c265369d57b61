"""One hold invoice, and our client on a node of the simnet."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable

import msgspec
import trio
from coincurve import PrivateKey

from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import HoldState
from nostrain.units import Digest, Msat, UnixTime
from nostrain.wire.bolt11 import Bolt11, encode_bolt11
from tests.simnet.conftest import PATIENCE_S, World

Call = Callable[[ClnLightning], Awaitable[object]]
AMOUNT = Msat(10_000_000)
PREIMAGE = "42" * 32
HASH = Digest(hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest())


def signed(key: PrivateKey, **changes: object) -> str:
    """The invoice of a payee with that key, made just now, but for `changes`."""
    terms = Bolt11(
        currency="bcrt",
        payment_hash=HASH,
        payment_secret="33" * 32,
        created_at=UnixTime(int(time.time())),
        amount_msat=AMOUNT,
        description="",
        min_final_cltv=144,
    )
    return encode_bolt11(msgspec.structs.replace(terms, **changes), key.sign_recoverable)


def client(world: World, name: str, *, timeout_s: float = PATIENCE_S) -> ClnLightning:
    return ClnLightning(world.path(name), hold_poll_s=0.01, timeout_s=timeout_s)


async def accepted(payee: ClnLightning) -> None:
    """Return when a hold invoice of this node is accepted."""
    with trio.fail_after(PATIENCE_S):
        async with payee.holds() as updates:
            async for update in updates:
                if update.state is HoldState.ACCEPTED:
                    return
