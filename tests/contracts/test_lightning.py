"""What every Lightning node promises (ports.lightning). On the fake; the Core Lightning client and its hold plugin join with the money path.

Money never disappears and is never there twice; a payment is made once, however often it is asked for; a hold is settled, cancelled or expires.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable

import pytest
import trio
import trio.testing

from nostrain.errors import LocalProtocolError, OutcomeUnknown
from nostrain.ports.lightning import HoldState, HoldUpdate, Lightning, PayResult
from nostrain.testing.lightning import FakeLedger, FakeLightning
from nostrain.units import BlockHeight, Digest, Msat

FUNDS, AMOUNT, CLTV = Msat(1_000_000), Msat(400_000), 80
PREIMAGE = "11" * 32
HASH = Digest(hashlib.sha256(bytes.fromhex(PREIMAGE)).hexdigest())


class Channel:
    """A payer with funds and a payee without, on one ledger whose blocks the test finds."""

    def __init__(self) -> None:
        self.height = 800_000
        self.ledger = FakeLedger(lambda: self.height, balances={"payer": FUNDS, "payee": Msat(0), "other": FUNDS})
        self.payer: Lightning = FakeLightning(self.ledger, "payer")
        self.payee: Lightning = FakeLightning(self.ledger, "payee")
        self.other: Lightning = FakeLightning(self.ledger, "other")
        self.total = self.ledger.total()

    def has(self, payer: int, payee: int, held: int = 0) -> bool:
        """Whether the balances are these; and nothing was made or lost."""
        assert self.ledger.total() == self.total
        return (self.ledger.balances["payer"], self.ledger.balances["payee"], self.ledger.held()) == (payer, payee, held)


@pytest.fixture
def channel() -> Channel:
    return Channel()


async def invoice(channel: Channel) -> str:
    return await channel.payee.hold_invoice(HASH, AMOUNT, CLTV, 3600)


async def paying(channel: Channel, nursery: trio.Nursery, results: list[PayResult]) -> None:
    """Begin the payment; return when it is held."""
    bolt11 = await invoice(channel)

    async def pay() -> None:
        results.append(await channel.payer.pay(bolt11, HASH, AMOUNT))

    nursery.start_soon(pay)
    while not channel.ledger.held():
        await trio.lowlevel.checkpoint()


def test_it_has_the_methods_of_the_port(channel: Channel) -> None:
    def parameters(method: Callable[..., object]) -> list[str]:
        return [name for name in inspect.signature(method).parameters if name != "self"]

    for name in ("block_height", "hold_invoice", "pay", "settle", "cancel", "holds"):
        assert parameters(getattr(channel.payer, name)) == parameters(getattr(Lightning, name))


async def test_a_payment_is_held_and_then_settled(channel: Channel, autojump_clock: object) -> None:
    results: list[PayResult] = []
    async with trio.open_nursery() as nursery:
        await paying(channel, nursery, results)
        assert channel.has(FUNDS - AMOUNT, 0, AMOUNT)
        assert results == []
        await channel.payee.settle(PREIMAGE)
    assert results == [PayResult(HASH, PREIMAGE)]
    assert channel.has(FUNDS - AMOUNT, AMOUNT)
    await channel.payee.settle(PREIMAGE)
    assert channel.has(FUNDS - AMOUNT, AMOUNT)


async def test_a_payment_is_held_and_then_cancelled(channel: Channel, autojump_clock: object) -> None:
    results: list[PayResult] = []
    async with trio.open_nursery() as nursery:
        await paying(channel, nursery, results)
        await channel.payee.cancel(HASH)
    assert results == [PayResult(HASH, None)]
    assert channel.has(FUNDS, 0)
    await channel.payee.cancel(HASH)
    with pytest.raises(LocalProtocolError, match="no accepted hold invoice"):
        await channel.payee.settle(PREIMAGE)
    assert channel.has(FUNDS, 0)


async def test_a_hold_that_nobody_ends_expires_with_the_blocks(channel: Channel, autojump_clock: object) -> None:
    results: list[PayResult] = []
    async with trio.open_nursery() as nursery:
        await paying(channel, nursery, results)
        channel.height += CLTV - 1
        assert await channel.payee.block_height() == BlockHeight(800_000 + CLTV - 1)
        assert channel.ledger.held()
        channel.height += 1
        await channel.payer.block_height()
    assert results == [PayResult(HASH, None)]
    assert channel.has(FUNDS, 0)
    with pytest.raises(LocalProtocolError):
        await channel.payee.settle(PREIMAGE)


async def test_asking_for_a_payment_twice_pays_once(channel: Channel, autojump_clock: object) -> None:
    results: list[PayResult] = []
    async with trio.open_nursery() as nursery:
        await paying(channel, nursery, results)
        await paying(channel, nursery, results)
        await trio.testing.wait_all_tasks_blocked()
        assert channel.has(FUNDS - AMOUNT, 0, AMOUNT)
        assert channel.ledger.sent == 1
        await channel.payee.settle(PREIMAGE)
    assert results == [PayResult(HASH, PREIMAGE)] * 2
    bolt11 = f"lnfake:{HASH}:{AMOUNT}"
    assert await channel.payer.pay(bolt11, HASH, AMOUNT) == PayResult(HASH, PREIMAGE)
    assert channel.ledger.sent == 1


async def test_a_lost_reply_is_unknown_and_asking_again_joins(channel: Channel, autojump_clock: object) -> None:
    channel.ledger.lost_replies = 1
    bolt11 = await invoice(channel)
    with pytest.raises(OutcomeUnknown):
        await channel.payer.pay(bolt11, HASH, AMOUNT)
    assert channel.has(FUNDS - AMOUNT, 0, AMOUNT)
    await channel.payee.settle(PREIMAGE)
    assert await channel.payer.pay(bolt11, HASH, AMOUNT) == PayResult(HASH, PREIMAGE)
    assert channel.ledger.sent == 1


async def test_a_cancelled_call_leaves_the_payment_where_it_is(channel: Channel, autojump_clock: object) -> None:
    results: list[PayResult] = []
    async with trio.open_nursery() as nursery:
        await paying(channel, nursery, results)
        nursery.cancel_scope.cancel()
    assert results == []
    assert channel.has(FUNDS - AMOUNT, 0, AMOUNT)


@pytest.mark.parametrize(
    ("bolt11", "amount"), [("lnfake:other", AMOUNT), (f"lnfake:{HASH}:{AMOUNT}", AMOUNT + 1), (f"lnfake:{HASH}:{AMOUNT + 1}", AMOUNT + 1)]
)
async def test_an_invoice_that_is_not_what_was_agreed_is_not_paid(channel: Channel, bolt11: str, amount: int) -> None:
    await invoice(channel)
    assert await channel.payer.pay(bolt11, HASH, Msat(amount)) == PayResult(HASH, None)
    assert channel.has(FUNDS, 0)


async def test_a_payment_beyond_the_balance_or_to_nobody_fails_for_certain(channel: Channel) -> None:
    much = Msat(FUNDS + 1)
    bolt11 = await channel.payee.hold_invoice(HASH, much, CLTV, 3600)
    assert await channel.payer.pay(bolt11, HASH, much) == PayResult(HASH, None)
    assert await channel.payer.pay("lnfake:x", Digest("0" * 64), AMOUNT) == PayResult(Digest("0" * 64), None)
    assert channel.has(FUNDS, 0)


async def test_an_invoice_is_the_same_every_time_and_its_hash_nobody_elses(channel: Channel) -> None:
    first = await invoice(channel)
    assert await invoice(channel) == first
    for node, amount, cltv in ((channel.other, AMOUNT, CLTV), (channel.payee, Msat(1), CLTV), (channel.payee, AMOUNT, CLTV + 1)):
        with pytest.raises(LocalProtocolError, match="in use"):
            await node.hold_invoice(HASH, amount, cltv, 3600)


async def test_a_hash_that_was_used_up_is_in_use_for_good(channel: Channel) -> None:
    await invoice(channel)
    await channel.payee.cancel(HASH)
    with pytest.raises(LocalProtocolError, match="in use"):
        await invoice(channel)


async def test_nobody_settles_or_cancels_what_is_anothers(channel: Channel, autojump_clock: object) -> None:
    results: list[PayResult] = []
    async with trio.open_nursery() as nursery:
        await paying(channel, nursery, results)
        with pytest.raises(LocalProtocolError):
            await channel.other.settle(PREIMAGE)
        await channel.other.cancel(HASH)
        await channel.payee.cancel(Digest("0" * 64))
        assert channel.has(FUNDS - AMOUNT, 0, AMOUNT)
        bolt11 = f"lnfake:{HASH}:{AMOUNT}"
        assert await channel.other.pay(bolt11, HASH, AMOUNT) == PayResult(HASH, None)
        await channel.payee.settle(PREIMAGE)
    assert channel.has(FUNDS - AMOUNT, AMOUNT)


async def test_what_is_paid_cannot_be_cancelled(channel: Channel, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        await paying(channel, nursery, [])
        await channel.payee.settle(PREIMAGE)
    with pytest.raises(LocalProtocolError, match="is paid"):
        await channel.payee.cancel(HASH)
    assert channel.has(FUNDS - AMOUNT, AMOUNT)


async def test_holds_tell_every_state_first_and_each_change_after(channel: Channel, autojump_clock: object) -> None:
    async with trio.open_nursery() as nursery:
        async with channel.payee.holds() as before:
            await paying(channel, nursery, [])
            states = []
            while not states or states[-1].state is not HoldState.ACCEPTED:
                states.append(await before.receive())
        assert states[-1] == HoldUpdate(HASH, HoldState.ACCEPTED, AMOUNT, BlockHeight(800_000 + CLTV))
        async with channel.payee.holds() as after, channel.other.holds() as none:
            assert (await after.receive()).state is HoldState.ACCEPTED
            await channel.payee.settle(PREIMAGE)
            assert (await after.receive()).state is HoldState.PAID
            with pytest.raises(trio.WouldBlock):
                none.receive_nowait()
