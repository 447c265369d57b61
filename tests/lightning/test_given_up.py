"""A payment that may have been begun, asked about over the simnet: how it ended, and never a payment more."""

from __future__ import annotations

import pytest
import trio

from nostrain.errors import OutcomeUnknown
from nostrain.lightning import payments
from nostrain.ports.lightning import PayResult
from tests.lightning.holds import AMOUNT, client
from tests.simnet.conftest import PATIENCE_S, World


async def test_one_that_was_made_has_its_preimage_and_nothing_more_is_sent(world: World) -> None:
    seller, buyer = client(world, "c"), client(world, "w")
    made = await seller.invoice("fee/1", AMOUNT, "ticket", 600)
    paid = await buyer.pay(made.bolt11, made.payment_hash, AMOUNT)
    before = await world.balance("w")
    assert await buyer.ended(made.bolt11, made.payment_hash, AMOUNT) == paid
    assert await world.balance("w") == before


async def test_one_that_was_never_begun_has_failed_when_its_invoice_is_long_expired(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    seller, buyer = client(world, "c"), client(world, "w")
    made = await seller.invoice("fee/1", AMOUNT, "ticket", 1)
    for name in ("RETRY_FOR_S", "SETTLING_S"):
        monkeypatch.setattr(payments, name, 0)
    monkeypatch.setattr(payments, "UNSENT_S", 0.1)
    with trio.fail_after(PATIENCE_S):
        assert await buyer.ended(made.bolt11, made.payment_hash, AMOUNT) == PayResult(made.payment_hash, None)
    assert not (await world.ask("w", "listsendpays"))["payments"]


async def test_while_it_could_still_be_paid_it_is_not_over(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever was cancelled may have sent its request: the payment shows up later."""
    seller, buyer = client(world, "c"), client(world, "w")
    made = await seller.invoice("fee/1", AMOUNT, "ticket", 600)
    monkeypatch.setattr(payments, "UNSENT_S", 0.02)
    results: list[PayResult] = []

    async def ask() -> None:
        results.append(await buyer.ended(made.bolt11, made.payment_hash, AMOUNT))

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await world.ask("w", "listsendpays")
            assert results == []
            paid = await buyer.pay(made.bolt11, made.payment_hash, AMOUNT)
    assert results == [paid]


async def test_an_invoice_that_we_would_never_pay_was_not_paid_and_a_node_that_is_away_does_not_say(world: World) -> None:
    seller, buyer = client(world, "c"), client(world, "w")
    made = await seller.invoice("fee/1", AMOUNT, "ticket", 600)
    assert (await buyer.ended("nonsense", made.payment_hash, AMOUNT)).preimage is None
    await world.ask("simnet", "simnet-fault", kind="crash", node="w")
    with pytest.raises(OutcomeUnknown):
        await buyer.ended(made.bolt11, made.payment_hash, AMOUNT)
