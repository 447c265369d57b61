"""A payer and a payee that die between any two calls to their nodes, over the simnet: paid once or refunded once, and both sides hear the same."""

from __future__ import annotations

import hashlib
import secrets

import pytest
import trio

from nostrain.errors import LocalProtocolError
from nostrain.lightning.client import ClnLightning
from nostrain.ports.lightning import HoldState
from nostrain.testing.steps import Death, Step
from nostrain.units import Digest, Msat
from tests.lightning.dying import Mortal, every_death
from tests.simnet.conftest import PATIENCE_S, World

AMOUNT, CLTV, EXPIRY_S = Msat(10_000_000), 144, 3600
SAFETY_BLOCKS = 24
PAYER, PAYEE = "c", "w"
PAYS = ("getinfo", "getlog", "listpeerchannels", "listsendpays", "sendpay", "waitsendpay")
INVOICES = ("getinfo", "injectholdinvoice", "listholdinvoices", "listinvoices", "signinvoice")


class Escrow:
    """One level: an invoice, a payment, and how it ends. `paid` is what the payer was told last: the preimage, or None."""

    def __init__(self, world: World, *deaths: Death) -> None:
        self.world = world
        self.payer = Mortal(world.path(PAYER), *(death for death in deaths if death.name == PAYER))
        self.payee = Mortal(world.path(PAYEE), *(death for death in deaths if death.name == PAYEE))
        self.preimage = secrets.token_hex(32)
        self.hash = Digest(hashlib.sha256(bytes.fromhex(self.preimage)).hexdigest())
        self.paid: str | None = "nothing"

    async def lock(self, nursery: trio.Nursery) -> None:
        """Return when the money is held; the payer goes on waiting for its outcome."""
        bolt11 = await self.payee.insist(lambda lightning: lightning.hold_invoice(self.hash, AMOUNT, CLTV, EXPIRY_S))
        nursery.start_soon(self.pay, bolt11)
        await self.until(HoldState.ACCEPTED)

    async def pay(self, bolt11: str) -> None:
        """Until the node says how it ended."""
        self.paid = (await self.payer.insist(lambda lightning: lightning.pay(bolt11, self.hash, AMOUNT))).preimage

    async def until(self, state: HoldState) -> None:
        """Wait for a state of the invoice, as a process would that does not die."""
        async with ClnLightning(self.world.path(PAYEE), hold_poll_s=0.01).holds() as updates:
            async for update in updates:
                if update.payment_hash == self.hash and update.state is state:
                    return

    def check(self, *, paid: bool) -> None:
        """What the simnet's ledger says: the sum moved once or not at all, nothing is held, and the payer knows which."""
        network = self.world.network
        network.check()
        assert not [htlc for channel in network.channels for htlc in channel.htlcs]
        sent = [payment for payment in network.nodes[PAYER].payments if payment.payment_hash == self.hash]
        assert len(sent) == 1, "sent once, whoever died"
        assert [payment.status for payment in sent] == ["complete" if paid else "failed"]
        assert network.nodes[PAYEE].holds[self.hash].state == ("paid" if paid else "cancelled")
        assert self.paid == (self.preimage if paid else None)


async def run(world: World, end: str, *deaths: Death) -> Escrow:
    """One level from its invoice to its end."""
    escrow = Escrow(world, *deaths)
    channel = next(channel for channel in world.network.channels if PAYEE in channel.ends)
    before = channel.to_us[PAYEE]
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await escrow.lock(nursery)
            if end == "settle":
                await escrow.payee.insist(lambda lightning: lightning.settle(escrow.preimage))
            else:
                await escrow.payee.insist(lambda lightning: lightning.cancel(escrow.hash))
    escrow.check(paid=end == "settle")
    assert channel.to_us[PAYEE] == before + (AMOUNT if end == "settle" else 0)
    return escrow


@pytest.mark.parametrize("end", ["settle", "cancel"])
async def test_a_death_between_any_two_calls(world: World, end: str) -> None:
    whole = await run(world, end)
    assert {step.method for step in whole.payer.steps.taken} == set(PAYS)
    assert {step.method for step in whole.payee.steps.taken} == {*INVOICES, f"{end}holdinvoice"}
    assert {step.at for step in whole.payer.steps.taken} == {"before", "told", "after"}
    deaths = every_death(whole.payer.steps, PAYER) + every_death(whole.payee.steps, PAYEE)
    for death in deaths:
        escrow = await run(world, end, death)
        assert escrow.payer.deaths + escrow.payee.deaths == 1, death


@pytest.mark.parametrize("end", ["settle", "cancel"])
async def test_both_die_in_the_middle_of_what_cannot_be_undone(world: World, end: str) -> None:
    """The payment is sent and the invoice ended, and neither hears of it; then each dies again while it asks what became of it."""
    for at in ("told", "after"):
        sent, ended = Step("rpc", "sendpay", at), Step("rpc", f"{end}holdinvoice", at)  # type: ignore[arg-type]
        asked = Step("rpc", "listsendpays", "after")
        deaths = (
            Death(PAYER, sent, 1),
            Death(PAYER, asked, 2),
            Death(PAYEE, ended, 1),
            Death(PAYEE, Step("rpc", "listholdinvoices", "told"), 1),
        )
        escrow = await run(world, end, *deaths)
        assert (escrow.payer.deaths, escrow.payee.deaths) == (2, 2)


@pytest.mark.parametrize("at", ["before", "told", "after"])
async def test_a_payee_that_died_settling_and_comes_back_too_late_cancels(world: World, at: str) -> None:
    """It is 24 blocks before the expiry: the level is cancelled unless the settlement had reached the node; then that says so, and it is paid."""
    escrow = Escrow(world, Death(PAYEE, Step("rpc", "settleholdinvoice", at), 1))  # type: ignore[arg-type]
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await escrow.lock(nursery)

            async def late(lightning: ClnLightning) -> bool:
                if not escrow.payee.deaths:
                    await lightning.settle(escrow.preimage)
                try:
                    await lightning.cancel(escrow.hash)
                except LocalProtocolError:
                    return True
                return False

            world.network.mine(CLTV - SAFETY_BLOCKS)
            settled = await escrow.payee.insist(late)
    assert escrow.payee.deaths == 1
    assert settled or at != "after"
    assert not settled or at != "before"
    escrow.check(paid=settled)
