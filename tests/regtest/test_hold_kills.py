"""The most dangerous kills, all of them -9, with a payment in flight from alice to bob:

 1  bob's process that has the HTLC                          the standby has it, and settles
 2  bob's standby, while the first process has the HTLC      nothing; it comes back
 3  the first, and when it is back, the standby              the HTLC goes to the standby and back
 4  both processes at once, the HTLC held                    lightningd sends it back; it can never be settled
 5  the process that has the HTLC, settle on disk, the reply not made    the other one resolves it
 6  the same with cancel                                     the other one fails it
 7  a process right after it has replied                     settled once
 8  a process between two parts of a payment                 the set is completed and settled whole
 9  bob's lightningd, the HTLC held                          it is handed over again, and settles
10  bob's lightningd, settle on disk, the reply not made     resolved when it is handed over again
11  bob's lightningd right after settle                      settled once
12  alice's lightningd, the HTLC held; settled while she is away    she has the preimage when she is back
13  the daemon between preimage and settle                   `test_what_nobody_settles…` in test_hold.py: sent back 24 blocks before the expiry;
                                                             and a daemon that asks twice is answered twice

After each: alice has the preimage and has paid exactly once, or has neither; nothing is held; the channel is open. BROKEN in a log is a failure.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from nostrain.devnet.regtest.programs import missing
from nostrain.holdplugin.plugin import FIRST, STANDBY
from nostrain.lightning.rpc import ClnError
from tests.regtest.hold_world import AMOUNT, Bill, World, slow, until, world

pytestmark = [pytest.mark.regtest, pytest.mark.timeout(240)]
if missing():
    pytestmark.append(pytest.mark.skip(reason=f"not on PATH: {', '.join(missing())}"))


async def locked(here: World) -> Bill:
    """A payment that is held."""
    bill = await here.bill()
    await here.send(bill)
    await here.held(bill)
    return bill


async def is_paid(here: World, bill: Bill, times: int = 1) -> None:
    """Alice has the preimage; what she spent since the start is `times` times the amount."""
    assert await here.paid(bill) == bill.preimage
    assert (await here.hold(bill))["state"] == "paid"
    assert await here.spent() == times * AMOUNT
    assert {channel["state"] for channel in await here.bob.channels()} == {"CHANNELD_NORMAL"}


async def is_refunded(here: World, bill: Bill, times: int = 0) -> None:
    """Alice has her money back, and nobody can settle any more."""
    assert "WIRE" in await here.refused(bill)
    await here.held(bill, "cancelled")
    with pytest.raises(ClnError, match="no HTLCs to settle"):
        await here.bob.ask("settleholdinvoice", preimage=bill.preimage)
    assert await here.spent() == times * AMOUNT
    assert {channel["state"] for channel in await here.bob.channels()} == {"CHANNELD_NORMAL"}


async def in_the_standby(here: World) -> Bill:
    """A payment that is held by the standby, while the first process, back again, has the methods."""
    bill = await locked(here)
    old = await here.kill(FIRST)
    await here.in_hand(bill, STANDBY)
    await here.back(FIRST, old)
    return bill


@contextmanager
def frozen(here: World, name: str) -> Iterator[int]:
    """A process that does nothing: what is on disk has not reached lightningd."""
    pid = here.pid(name)
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        # It may be gone, which was the point.
        if here.pid(name) == pid:
            os.kill(pid, signal.SIGCONT)


async def test_the_one_that_has_the_htlc_then_the_other_one() -> None:
    """1, 2 and 3, one after the other with the same HTLC."""
    async with world() as here:
        bill = await locked(here)
        old = await here.kill(STANDBY)
        await here.back(STANDBY, old)
        await here.in_hand(bill, FIRST)
        old = await here.kill(FIRST)
        await here.in_hand(bill, STANDBY)
        await here.back(FIRST, old)
        old = await here.kill(STANDBY)
        await here.in_hand(bill, FIRST)
        await here.back(STANDBY, old)
        old = await here.kill(FIRST)
        await here.in_hand(bill, STANDBY)
        await here.settle(bill)
        await is_paid(here, bill)


@slow
async def test_both_at_once() -> None:
    """4: what is gone cannot be settled, and a new invoice can be paid as if nothing had been."""
    async with world() as here:
        bill = await locked(here)
        pids = [here.pid(FIRST), here.pid(STANDBY)]
        for pid in pids:
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        assert "WIRE" in await here.refused(bill)
        # lightningd starts a plugin when it is told to, and there is nobody left to tell it.
        await here.bob.ask("plugin", subcommand="start", plugin=str(here.bob.settings.plugins[0]))
        with pytest.raises(ClnError, match="no HTLCs to settle"):
            await here.bob.ask("settleholdinvoice", preimage=bill.preimage)
        await is_refunded(here, bill)
        await here.both()
        after = await locked(here)
        await here.settle(after)
        await is_paid(here, after)


async def test_settle_is_on_disk_and_the_reply_is_not_made() -> None:
    """5: the standby has the HTLC and stands still while the first one settles, then dies."""
    async with world() as here:
        bill = await in_the_standby(here)
        with frozen(here, STANDBY):
            await here.settle(bill)
            assert (await here.hold(bill))["state"] == "paid"
            await here.in_hand(bill, STANDBY)
            await here.kill(STANDBY)
        await is_paid(here, bill)


@slow
async def test_cancel_is_on_disk_and_the_reply_is_not_made() -> None:
    """6."""
    async with world() as here:
        bill = await in_the_standby(here)
        with frozen(here, STANDBY):
            await here.bob.ask("cancelholdinvoice", payment_hash=bill.payment_hash)
            await here.kill(STANDBY)
        await is_refunded(here, bill)


@slow
async def test_right_after_the_reply() -> None:
    """7: the process that settled, with the HTLC in its own hands."""
    async with world() as here:
        bill = await locked(here)
        await here.settle(bill)
        await here.kill(FIRST)
        await is_paid(here, bill)


@slow
async def test_between_two_parts() -> None:
    """8: one part in each process."""
    async with world() as here:
        bill = await here.bill()
        await here.send(bill, partid=1, share=AMOUNT // 2)
        await here.in_hand(bill, FIRST)
        old = await here.kill(FIRST)
        await here.in_hand(bill, STANDBY)
        await here.back(FIRST, old)
        await here.send(bill, partid=2, share=AMOUNT // 2)
        await here.held(bill, htlcs=2)
        await here.kill(STANDBY)
        await here.in_hand(bill, FIRST)
        await here.settle(bill)
        assert await here.paid(bill, 1) == await here.paid(bill, 2) == bill.preimage
        assert await here.spent() == AMOUNT


async def test_bobs_lightningd_with_a_held_htlc() -> None:
    """9, twice: killed, and stopped in good order."""
    async with world() as here:
        bill = await locked(here)
        await here.network.crash("bob")
        await here.network.restart("bob")
        await here.both()
        await here.bob.stop()
        await here.network.restart("bob")
        await here.settle(bill)
        await is_paid(here, bill)


@slow
async def test_bobs_lightningd_with_settle_on_disk() -> None:
    """10."""
    async with world() as here:
        bill = await in_the_standby(here)
        with frozen(here, STANDBY) as pid:
            await here.settle(bill)
            await here.network.crash("bob")
            os.kill(pid, signal.SIGKILL)
        await here.network.restart("bob")
        await is_paid(here, bill)


@slow
async def test_bobs_lightningd_right_after_settle() -> None:
    """11."""
    async with world() as here:
        bill = await locked(here)
        await here.settle(bill)
        await here.network.crash("bob")
        await here.network.restart("bob")
        await is_paid(here, bill)


@slow
async def test_alices_lightningd() -> None:
    """12, settled while she is away."""
    async with world() as here:
        bill = await locked(here)
        await here.network.crash("alice")
        await here.settle(bill)
        await here.network.restart("alice")
        await is_paid(here, bill)


@slow
async def test_kills_without_end() -> None:
    """One process or the other, again and again, while payments come, are settled and are cancelled: each ends one way."""
    async with world() as here:
        done = trio.Event()

        async def killing() -> None:
            name = FIRST
            while not done.is_set():
                old = await here.kill(name)
                await here.back(name, old)
                name = STANDBY if name == FIRST else FIRST

        async def one(settled: bool) -> None:
            made = (await here.answered(here.bob, "holdinvoice", payment_hash=(bill := Bill.draw()).payment_hash, amount=AMOUNT))["bolt11"]
            bill = await here.read(bill, made)
            await here.send(bill)
            await here.held(bill)
            if settled:
                await here.settle(bill)
                assert await here.paid(bill) == bill.preimage
            else:
                await here.answered(here.bob, "cancelholdinvoice", payment_hash=bill.payment_hash)
                await here.refused(bill)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(killing)
            for number in range(12):
                await one(number % 3 != 0)
            done.set()
        assert await here.spent() == 8 * AMOUNT

        async def nothing_held() -> bool:
            listed = (await here.answered(here.bob, "listholdinvoices"))["holdinvoices"]
            return sorted(hold["state"] for hold in listed) == ["cancelled"] * 4 + ["paid"] * 8

        await until(nothing_held)


@slow
async def test_plugin_stop_is_not_a_death() -> None:
    """What the operator stops stays away, and what it held goes to the other one; starting the first one brings both."""
    async with world() as here:
        bill = await locked(here)
        await here.bob.ask("plugin", subcommand="stop", plugin=FIRST)
        await here.in_hand(bill, STANDBY)
        await here.bob.ask("plugin", subcommand="stop", plugin=STANDBY)
        await here.refused(bill)
        assert (here.pid(FIRST), here.pid(STANDBY)) == (None, None)
        await here.bob.ask("plugin", subcommand="start", plugin=str(here.bob.settings.plugins[0]))
        await here.both()
        await is_refunded(here, bill)
