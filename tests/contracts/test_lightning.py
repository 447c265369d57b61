"""One suite for `ports.lightning.Lightning`: on the fake, and on the real client with the simnet in a process of its own."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

from nostrain.errors import LocalProtocolError, OutcomeUnknown, Unavailable
from nostrain.lightning.client import ClnLightning
from nostrain.lightning.rpc import ClnRpc
from nostrain.ports.lightning import HoldState, HoldUpdate, Lightning, PayResult
from nostrain.testing.lightning import FakeLedger, FakeLightning
from nostrain.units import Digest, Msat

PATIENCE_S = 10
FUNDS = {"payer": Msat(1_000_000_000), "payee": Msat(20_000_000)}
AMOUNT = Msat(10_000_000)
CLTV = 144
SEVERAL = 3


class World(Protocol):
    """Two nodes with a channel, and what a test may do to them."""

    payer: Lightning
    payee: Lightning

    async def mine(self, blocks: int) -> None: ...
    async def balance(self, name: str) -> int: ...
    async def held(self) -> int: ...
    async def crash(self, name: str) -> None: ...
    async def start(self, name: str) -> None: ...
    async def lose_a_reply(self) -> None: ...


class FakeWorld:
    """The fake ledger."""

    def __init__(self) -> None:
        self._height = 800_000
        self._ledger = FakeLedger(lambda: self._height, balances=dict(FUNDS))
        self.payer, self.payee = FakeLightning(self._ledger, "payer"), FakeLightning(self._ledger, "payee")

    async def mine(self, blocks: int) -> None:
        self._height += blocks
        self._ledger.expire()

    async def balance(self, name: str) -> int:
        return self._ledger.balances[name]

    async def held(self) -> int:
        assert self._ledger.total() == sum(FUNDS.values())
        return self._ledger.held()

    async def crash(self, name: str) -> None:
        self._ledger.crash(name)

    async def start(self, name: str) -> None:
        self._ledger.start(name)

    async def lose_a_reply(self) -> None:
        self._ledger.lost_replies += 1


class SimnetProcess:
    """`python -m nostrain.devnet.simnet`, started and stopped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        nodes = ",".join(f"{name}={amount}" for name, amount in FUNDS.items())
        command = [sys.executable, "-m", "nostrain.devnet.simnet", "--dir", str(folder), "--nodes", nodes]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert "test network" in self._process.stdout.readline()

    def stop(self) -> int:
        self._process.terminate()
        code = self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        return code


class SimnetWorld:
    """The simnet. Its balance of a node is what the node would have if nothing that it offered were taken: the fake's is without that."""

    def __init__(self, folder: Path) -> None:
        self._control = ClnRpc(folder / "simnet-rpc")
        self.payer, self.payee = (ClnLightning(folder / name / "lightning-rpc", hold_poll_s=0.02) for name in FUNDS)

    async def control(self, what: str, /, **params: object) -> Any:
        return await self._control.call(f"simnet-{what}", params, dict, timeout_s=PATIENCE_S)

    async def mine(self, blocks: int) -> None:
        await self.control("mine", blocks=blocks)

    async def balance(self, name: str) -> int:
        node = (await self.control("balances"))["nodes"][name]
        return int(node["balance_msat"] - node["held_msat"])

    async def held(self) -> int:
        nodes = (await self.control("balances"))["nodes"].values()
        assert sum(node["balance_msat"] for node in nodes) == sum(FUNDS.values())
        return sum(node["held_msat"] for node in nodes)

    async def crash(self, name: str) -> None:
        await self.control("fault", kind="crash", node=name)

    async def start(self, name: str) -> None:
        await self.control("fault", kind="start", node=name)

    async def lose_a_reply(self) -> None:
        await self.control("fault", kind="lose-reply", node="payer", method="sendpay")


@pytest.fixture(scope="module")
def simnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimnetProcess]:
    process = SimnetProcess(tmp_path_factory.mktemp("simnet"))
    yield process
    assert process.stop() == 0


@pytest.fixture(params=["fake", "simnet"])
def world(request: pytest.FixtureRequest) -> World:
    return FakeWorld() if request.param == "fake" else SimnetWorld(request.getfixturevalue("simnet").folder)


@pytest.fixture
def secret(request: pytest.FixtureRequest) -> Callable[[], tuple[str, Digest]]:
    """Preimages and hashes of this test's own."""
    numbers = itertools.count()

    def draw() -> tuple[str, Digest]:
        preimage = hashlib.sha256(f"{request.node.nodeid}/{next(numbers)}".encode()).digest()
        return preimage.hex(), Digest(hashlib.sha256(preimage).hexdigest())

    return draw


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


async def test_pay_hold_settle_moves_exactly_the_amount(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    height = await world.payee.block_height()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        assert (await until(HoldState.UNPAID)).amount_msat == AMOUNT
        async with paying(world, bolt11, payment_hash) as results:
            accepted = await until(HoldState.ACCEPTED)
            assert accepted.amount_msat == AMOUNT
            assert accepted.cltv_expiry is not None
            assert height + CLTV <= accepted.cltv_expiry <= height + CLTV + 10
            assert await both(world) == (payer - AMOUNT, payee)
            assert await world.held() == AMOUNT
            assert results == []
            await world.payee.settle(preimage)
            await until(HoldState.PAID)
        await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)
    assert await world.held() == 0


async def test_cancel_gives_the_money_back_and_the_payment_fails(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    before = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        async with paying(world, bolt11, payment_hash) as results:
            await until(HoldState.ACCEPTED)
            await world.payee.cancel(payment_hash)
            await until(HoldState.CANCELLED)
        await world.payee.cancel(payment_hash)
    assert results == [PayResult(payment_hash, None)]
    assert await both(world) == before
    with pytest.raises(LocalProtocolError):
        await world.payee.settle(preimage)
    assert await world.payer.pay(bolt11, payment_hash, AMOUNT) == PayResult(payment_hash, None)
    assert await world.held() == 0


async def test_cancel_before_anybody_paid_refuses_the_payment(world: World, secret: Secret) -> None:
    _, payment_hash = secret()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    await world.payee.cancel(payment_hash)
    with trio.fail_after(PATIENCE_S):
        assert await world.payer.pay(bolt11, payment_hash, AMOUNT) == PayResult(payment_hash, None)
    assert await world.held() == 0


async def test_cancel_of_what_is_not_there_is_nothing_and_of_what_is_paid_an_error(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    await world.payee.cancel(payment_hash)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash) as results:
        await until(HoldState.ACCEPTED)
        await world.payee.settle(preimage)
    with pytest.raises(LocalProtocolError):
        await world.payee.cancel(payment_hash)
    assert results == [PayResult(payment_hash, preimage)]


async def test_hold_invoice_is_idempotent_per_hash(world: World, secret: Secret) -> None:
    _, payment_hash = secret()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    assert await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600) == bolt11
    with pytest.raises(LocalProtocolError):
        await world.payee.hold_invoice(payment_hash, Msat(AMOUNT + 1), CLTV, 3600)


async def test_what_is_not_settled_comes_back_at_its_expiry(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    before = await both(world)
    height = await world.payer.block_height()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash) as results:
        accepted = await until(HoldState.ACCEPTED)
        await world.mine(CLTV - 24)
        assert await world.held() == AMOUNT
        assert results == []
        await world.mine(accepted.cltv_expiry - height - (CLTV - 24))
        await until(HoldState.CANCELLED)
    assert results == [PayResult(payment_hash, None)]
    assert await both(world) == before
    assert await world.payer.block_height() == accepted.cltv_expiry
    with pytest.raises(LocalProtocolError):
        await world.payee.settle(preimage)


async def test_what_the_payer_has_not_is_refused_for_good(world: World, secret: Secret) -> None:
    _, payment_hash = secret()
    before = await both(world)
    amount = Msat(sum(FUNDS.values()) + 1)
    bolt11 = await world.payee.hold_invoice(payment_hash, amount, CLTV, 3600)
    with trio.fail_after(PATIENCE_S):
        for _ in range(2):
            assert await world.payer.pay(bolt11, payment_hash, amount) == PayResult(payment_hash, None)
    assert await both(world) == before
    assert await world.held() == 0


async def test_an_invoice_for_something_else_is_not_paid(world: World, secret: Secret) -> None:
    _, payment_hash = secret()
    _, other = secret()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    await world.payee.hold_invoice(other, AMOUNT, CLTV, 3600)
    with trio.fail_after(PATIENCE_S):
        assert await world.payer.pay(bolt11, other, AMOUNT) == PayResult(other, None)
        assert await world.payer.pay(bolt11, payment_hash, Msat(AMOUNT - 1)) == PayResult(payment_hash, None)
        assert await world.payer.pay("lnbcrt1nonsense", payment_hash, AMOUNT) == PayResult(payment_hash, None)
    assert await world.held() == 0


async def test_duplicate_payments_join_the_first(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash, times=SEVERAL) as results:
        await until(HoldState.ACCEPTED)
        assert await world.held() == AMOUNT
        await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)] * SEVERAL
    assert await world.payer.pay(bolt11, payment_hash, AMOUNT) == PayResult(payment_hash, preimage)
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_a_lost_reply_is_unknown_and_then_reconciled(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    await world.lose_a_reply()
    async with following(world.payee, payment_hash) as until:
        async with paying(world, bolt11, payment_hash) as lost:
            await until(HoldState.ACCEPTED)
        assert [type(result) for result in lost] == [OutcomeUnknown]
        assert await world.held() == AMOUNT
        async with paying(world, bolt11, payment_hash) as results:
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_a_cancelled_call_leaves_the_payment_to_be_joined(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.payer.pay, bolt11, payment_hash, AMOUNT)
            await until(HoldState.ACCEPTED)
            nursery.cancel_scope.cancel()
        assert await world.held() == AMOUNT
        async with paying(world, bolt11, payment_hash) as results:
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_the_payers_node_restarts_while_held(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        async with paying(world, bolt11, payment_hash) as lost:
            await until(HoldState.ACCEPTED)
            await world.crash("payer")
        assert [type(result) for result in lost] == [OutcomeUnknown]
        with pytest.raises(OutcomeUnknown):
            await world.payer.pay(bolt11, payment_hash, AMOUNT)
        await world.start("payer")
        async with paying(world, bolt11, payment_hash) as results:
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_the_payees_node_restarts_while_held(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with paying(world, bolt11, payment_hash) as results:
        async with following(world.payee, payment_hash) as until:
            await until(HoldState.ACCEPTED)
        await world.crash("payee")
        for call in (lambda: world.payee.settle(preimage), lambda: world.payee.cancel(payment_hash), world.payee.block_height):
            with pytest.raises(Unavailable):
                await call()
        assert await world.held() == AMOUNT
        await world.start("payee")
        async with following(world.payee, payment_hash) as until:
            assert (await until(HoldState.ACCEPTED)).cltv_expiry is not None
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def test_updates_end_with_unavailable_when_the_node_is_lost(world: World) -> None:
    async def follow() -> None:
        async with world.payee.holds() as updates:
            await world.crash("payee")
            async for update in updates:
                assert update.payment_hash

    with trio.fail_after(PATIENCE_S), pytest.raises(Unavailable):
        await follow()
    await world.start("payee")
    assert await world.payee.block_height() > 0


async def test_a_payee_that_is_away_is_paid_when_it_is_back(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    await world.crash("payee")
    with trio.fail_after(PATIENCE_S), pytest.raises(OutcomeUnknown):
        await world.payer.pay(bolt11, payment_hash, AMOUNT)
    assert await world.held() == 0
    await world.start("payee")
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash) as results:
        await until(HoldState.ACCEPTED)
        await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]


async def test_nothing_is_settled_that_was_not_accepted(world: World, secret: Secret) -> None:
    preimage, payment_hash = secret()
    with pytest.raises(LocalProtocolError):
        await world.payee.settle(preimage)
    await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    with pytest.raises(LocalProtocolError):
        await world.payee.settle(preimage)


async def test_the_height_follows_the_chain(world: World) -> None:
    height = await world.payer.block_height()
    await world.mine(SEVERAL)
    assert [await node.block_height() for node in (world.payer, world.payee)] == [height + SEVERAL] * 2
