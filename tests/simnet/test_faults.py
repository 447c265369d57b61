"""The simnet's nodes stop, come back with what they had, and lose what goes between them and their clients."""

from __future__ import annotations

import pytest
import trio

from tests.simnet.conftest import Failed, World
from tests.simnet.holds import settled, state


async def test_a_node_comes_back_with_what_it_had(world: World) -> None:
    preimage, invoice = await world.held_invoice("w", 1_000)
    await world.send("c", invoice)
    await world.ask("simnet", "simnet-fault", kind="crash", node="w")
    with pytest.raises(FileNotFoundError):
        await world.ask("w", "getinfo")
    _, other = await world.held_invoice("v", 1_000)
    with pytest.raises(Failed, match="First peer not ready") as failed:
        await world.send("c", invoice | {"payment_hash": other["payment_hash"]})
    assert failed.value.code == 204
    assert await world.ask("c", "listsendpays", payment_hash=other["payment_hash"]) == {"payments": []}
    await world.ask("simnet", "simnet-fault", kind="start", node="w")
    assert await state(world, invoice) == "accepted"
    await settled(world, preimage)
    assert (await world.wait("c", invoice))["payment_preimage"] == preimage


async def test_faults_of_the_connection(world: World) -> None:
    for kind in ("lose-reply", "lose-request"):
        await world.ask("simnet", "simnet-fault", kind=kind, node="c", method="invoice")
        with pytest.raises(EOFError):
            await world.ask("c", "invoice", amount_msat=1, label=kind, description="")
    assert [invoice["label"] for invoice in (await world.ask("c", "listinvoices"))["invoices"]] == ["lose-reply"]
    await world.ask("simnet", "simnet-fault", kind="stall", node="c")
    answered = trio.Event()

    async def ask() -> None:
        await world.ask("c", "getinfo")
        answered.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await world.ask("w", "getinfo")
        assert not answered.is_set()
        await world.ask("simnet", "simnet-fault", kind="resume", node="c")
    assert answered.is_set()
    for params in ({"kind": "crash", "node": "nobody"}, {"kind": "expire", "payment_hash": "00"}, {"kind": "melt"}):
        with pytest.raises(Failed) as refused:
            await world.ask("simnet", "simnet-fault", **params)
        assert refused.value.code == -32602
