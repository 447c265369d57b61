"""Money that is held in a wallet's channels."""

from __future__ import annotations

import hashlib
import secrets

import trio

from nostrain.units import Digest, Msat
from tests.paid.conftest import SimnetProcess

HELD, CLTV = Msat(1_234_567), 80


async def hold(simnet: SimnetProcess) -> None:
    """The coordinator locks HELD towards worker-1."""
    payer, payee = simnet.lightning("coordinator"), simnet.lightning("worker-1")
    payment_hash = Digest(hashlib.sha256(secrets.token_bytes(32)).hexdigest())
    bolt11 = await payee.hold_invoice(payment_hash, HELD, CLTV, 3600)
    async with trio.open_nursery() as nursery, payee.holds() as updates:
        nursery.start_soon(payer.pay, bolt11, payment_hash, HELD)
        with trio.fail_after(10):
            async for update in updates:
                if update.cltv_expiry is not None:
                    break
        nursery.cancel_scope.cancel()
