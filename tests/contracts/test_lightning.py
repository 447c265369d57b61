"""One suite for `ports.lightning.Lightning`: on the fake, and on the real client with the simnet or, where they are on PATH, real nodes in processes of their own."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from nostrain.errors import LocalProtocolError, OutcomeUnknown, Unavailable
from nostrain.ports.lightning import HoldState, HoldUpdate, Lightning, NodeFunds, PayResult
from nostrain.units import Digest, Msat
from tests.contracts.lightning_worlds import FUNDS, FakeWorld, NetworkWorld, RegtestWorld, World, by_rune
from tests.regtest.networks import Failure, NetworkProcess, ask, running
from tests.regtest.proxy import LossyProxy

PATIENCE_S = 60
AMOUNT = Msat(10_000_000)
CLTV = 144
SMALL = Msat(1_000_000)
MANY = 40
"""More than the slots of mainnet's settings, fewer than those of regtest's."""
SEVERAL = 3
BY_RUNE = " by rune"


@pytest.fixture(scope="module")
def simnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("simnet", tmp_path_factory, FUNDS)


@pytest.fixture(scope="module")
def mainnet_like(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("regtest", tmp_path_factory, FUNDS, hold=True)


@pytest.fixture(scope="module")
def regtest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("regtest", tmp_path_factory, FUNDS, "--regtest-cltv", hold=True)


@pytest.fixture(params=["fake", "simnet", "simnet by rune", "mainnet_like", "mainnet_like by rune", "regtest"])
def network(request: pytest.FixtureRequest) -> NetworkProcess | None:
    """None: the fake ledger. The last three are real nodes, with lightningd's CLTVs and HTLC slots of mainnet and of regtest."""
    return None if request.param == "fake" else request.getfixturevalue(request.param.removesuffix(BY_RUNE))


@pytest.fixture(params=["simnet", "mainnet_like", "regtest"])
def nodes(request: pytest.FixtureRequest) -> NetworkProcess:
    """As `network`, without the fake: for what lightningd has and the port has not."""
    return request.getfixturevalue(request.param)


@pytest.fixture
async def world(request: pytest.FixtureRequest, network: NetworkProcess | None) -> AsyncIterator[World]:
    if network is None:
        yield FakeWorld()
    elif request.node.callspec.params["network"].endswith(BY_RUNE):
        async with by_rune(network) as found:
            yield found
        await network.start_all()
    elif network.kind == "simnet":
        yield NetworkWorld(network)
        await network.start_all()
    else:
        proxy = LossyProxy(network.folder / "proxy", network.socket("payer"))
        async with trio.open_nursery() as nursery:
            await nursery.start(proxy.serve)
            yield RegtestWorld(network, proxy)
            nursery.cancel_scope.cancel()
        await network.start_all()


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


async def test_funds_are_what_the_channels_can_carry_now(world: World, secret: Secret) -> None:
    def spendable(funds: NodeFunds) -> int:
        return sum(peer.spendable_msat for peer in funds.peers if peer.connected)

    preimage, payment_hash = secret()
    before = await world.payer.funds()
    assert before.syncing is None
    assert before.height == await world.payer.block_height()
    assert all(peer.slots_out > 0 and peer.slots_in > 0 for peer in before.peers)
    assert spendable(before) > AMOUNT
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until, paying(world, bolt11, payment_hash):
        await until(HoldState.ACCEPTED)
        assert spendable(before) - spendable(await world.payer.funds()) >= AMOUNT, "what is held cannot be spent"
        await world.payee.settle(preimage)
    await world.crash("payer")
    with trio.fail_after(PATIENCE_S), pytest.raises(Unavailable):
        await world.payer.funds()
    await world.start("payer")
    assert (await world.payer.funds()).peers


async def test_the_height_follows_the_chain(world: World) -> None:
    height = await world.payer.block_height()
    await world.mine(SEVERAL)
    assert [await node.block_height() for node in (world.payer, world.payee)] == [height + SEVERAL] * 2


async def test_parts_of_a_payment_are_held_when_all_are_there(nodes: NetworkProcess, secret: Secret) -> None:
    """MPP: here sent by hand, since between two nodes nothing needs it; `pay` joins what it finds."""
    preimage, payment_hash = secret()
    world = NetworkWorld(nodes)
    payer, payee = await both(world)
    bolt11 = await world.payee.hold_invoice(payment_hash, AMOUNT, CLTV, 3600)
    async with following(world.payee, payment_hash) as until:
        await send_part(nodes, bolt11, 1, AMOUNT // 4)
        while await world.held() == 0:
            await trio.lowlevel.checkpoint()
        assert await world.held() == AMOUNT // 4
        await until(HoldState.UNPAID)
        await send_part(nodes, bolt11, 2, AMOUNT - AMOUNT // 4)
        assert (await until(HoldState.ACCEPTED)).amount_msat == AMOUNT
        assert await world.held() == AMOUNT
        async with paying(world, bolt11, payment_hash) as results:
            await world.payee.settle(preimage)
    assert results == [PayResult(payment_hash, preimage)]
    assert await both(world) == (payer - AMOUNT, payee + AMOUNT)


async def send_part(nodes: NetworkProcess, bolt11: str, partid: int, amount: int) -> None:
    """One part of AMOUNT over the channel."""
    socket = nodes.socket("payer")
    invoice = await ask(socket, "decode", {"string": bolt11})
    channel = (await ask(socket, "listpeerchannels", {"id": invoice["payee"]}))["channels"][0]["short_channel_id"]
    hop = {"id": invoice["payee"], "channel": channel, "amount_msat": amount, "delay": invoice["min_final_cltv_expiry"] + 1}
    terms = {"payment_hash": invoice["payment_hash"], "payment_secret": invoice["payment_secret"], "amount_msat": AMOUNT}
    sent = await ask(socket, "sendpay", {"route": [hop], "partid": partid, "groupid": 1, **terms})
    assert not isinstance(sent, Failure), sent


async def test_as_many_are_held_as_the_channel_has_slots_and_the_next_fails_for_good(nodes: NetworkProcess, secret: Secret) -> None:
    world = NetworkWorld(nodes)
    before = await both(world)
    slots = (await world.payer.balances()).channels[0].max_accepted_htlcs
    holds = [secret() for _ in range(min(slots, MANY))]
    invoices = {payment_hash: await world.payee.hold_invoice(payment_hash, SMALL, CLTV, 3600) for _, payment_hash in holds}
    ended: list[PayResult] = []

    async def pay(payment_hash: Digest) -> None:
        ended.append(await world.payer.pay(invoices[payment_hash], payment_hash, SMALL))

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery, world.payee.holds() as updates:
            for _, payment_hash in holds:
                nursery.start_soon(pay, payment_hash)
            accepted: set[Digest] = set()
            while accepted != set(invoices):
                update = await updates.receive()
                if update.state is HoldState.ACCEPTED:
                    accepted.add(update.payment_hash)
            assert await world.held() == SMALL * len(holds)
            if len(holds) == slots:
                _, one_more = secret()
                bolt11 = await world.payee.hold_invoice(one_more, SMALL, CLTV, 3600)
                assert await world.payer.pay(bolt11, one_more, SMALL) == PayResult(one_more, None)
            for _, payment_hash in holds:
                await world.payee.cancel(payment_hash)
    assert sorted(ended, key=str) == sorted((PayResult(payment_hash, None) for payment_hash in invoices), key=str)
    assert await both(world) == before
    assert await world.held() == 0
