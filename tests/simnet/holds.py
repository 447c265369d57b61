"""A hold invoice of the worker `w`, asked after as anybody would."""

from __future__ import annotations

from tests.simnet.conftest import World


async def settled(world: World, preimage: str) -> None:
    assert await world.ask("w", "settleholdinvoice", preimage=preimage) == {}


async def state(world: World, invoice: dict[str, object]) -> object:
    found = await world.ask("w", "listholdinvoices", payment_hash=invoice["payment_hash"])
    return found["holdinvoices"][0]["state"]
