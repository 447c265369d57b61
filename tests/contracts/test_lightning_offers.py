"""The BOLT 12 half of `ports.lightning.Lightning`: one suite on the fake, on the simnet, and on real nodes where they are on PATH."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest
import trio

from nostrain.errors import OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.ports.lightning import FetchedInvoice
from nostrain.units import Digest, Msat
from nostrain.wire.bolt12_invoice import check_answers_untrusted, parse_invoice_untrusted
from nostrain.wire.bolt12_offer import encode_offer, parse_offer_untrusted
from tests.contracts.lightning_worlds import FUNDS, FakeWorld, NetworkWorld, RegtestWorld, World
from tests.regtest.networks import NetworkProcess, running
from tests.regtest.proxy import LossyProxy

AMOUNT = Msat(13_333)
DESCRIPTION = "shares of a run"
TRIES = 3


@pytest.fixture(scope="module")
def simnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("simnet", tmp_path_factory, FUNDS)


@pytest.fixture(scope="module")
def regtest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkProcess]:
    yield from running("regtest", tmp_path_factory, FUNDS)


@pytest.fixture(params=["fake", "simnet", "regtest"])
def network(request: pytest.FixtureRequest) -> NetworkProcess | None:
    """None: the fake. Not in an async fixture: pytest-trio loses the reason of what is skipped there."""
    return None if request.param == "fake" else request.getfixturevalue(request.param)


@pytest.fixture
async def world(network: NetworkProcess | None) -> AsyncIterator[World]:
    if network is None:
        yield FakeWorld()
        return
    if network.kind == "simnet":
        yield NetworkWorld(network)
        return
    proxy = LossyProxy(network.folder / "proxy", network.socket("payer"))
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        yield RegtestWorld(network, proxy)
        nursery.cancel_scope.cancel()


async def fetched_from(world: World, offer: str, amount_msat: Msat = AMOUNT) -> FetchedInvoice:
    """An invoice, asked for again when it is not to be had now, as the daemon does: the request goes by onion messages, which get lost."""
    for _ in range(TRIES - 1):
        with suppress(Unavailable):
            return await world.payer.fetch_invoice(offer, amount_msat)
    return await world.payer.fetch_invoice(offer, amount_msat)


async def settled(world: World, before: int) -> int:
    """By how much the payee's balance has grown."""
    return await world.balance("payee") - before


async def test_an_offer_is_the_same_every_time_and_names_its_node(world: World) -> None:
    offer = await world.payee.offer(DESCRIPTION)
    assert await world.payee.offer(DESCRIPTION) == offer
    assert await world.payee.offer("another") != offer
    assert await world.payer.offer(DESCRIPTION) != offer
    read = parse_offer_untrusted(offer)
    assert (read.networks, read.open, read.description) == (("regtest",), True, DESCRIPTION)


async def test_an_invoice_is_for_the_amount_and_from_the_offer_and_new_every_time(world: World) -> None:
    offer = await world.payee.offer(DESCRIPTION)
    before = await world.balance("payer")
    one, other = await fetched_from(world, offer), await fetched_from(world, offer)
    assert one.payment_hash != other.payment_hash
    read = parse_invoice_untrusted(one.bolt12)
    check_answers_untrusted(read, parse_offer_untrusted(offer), AMOUNT, "regtest")
    assert read.payment_hash == one.payment_hash
    assert await world.balance("payer") == before, "no money moves"


async def test_a_fetched_invoice_is_paid_once_however_often_it_is_asked_for(world: World) -> None:
    before = await world.balance("payee")
    fetched = await fetched_from(world, await world.payee.offer(DESCRIPTION))
    first = await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    again = await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    assert first == again
    assert first.preimage is not None
    assert hashlib.sha256(bytes.fromhex(first.preimage)).hexdigest() == fetched.payment_hash
    assert await settled(world, before) == AMOUNT


async def last(world: World) -> int:
    """The number of the last payment that came to the payee."""
    index = 0
    while (found := await world.payee.income(index)) is not None:
        index = found.index
    return index


async def test_what_is_paid_is_told_to_its_node_in_its_order_and_once(world: World) -> None:
    before = await last(world)
    assert await world.payee.income(before) is None
    paid = []
    for description in (DESCRIPTION, "another"):
        fetched = await fetched_from(world, await world.payee.offer(description))
        await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
        paid.append((fetched.payment_hash, AMOUNT, description))
    one = await world.payee.income(before)
    assert one is not None
    assert await world.payee.income(before) == one
    other = await world.payee.income(one.index)
    assert other is not None
    assert [(found.payment_hash, found.amount_msat, found.description) for found in (one, other)] == paid
    assert await world.payee.income(other.index) is None
    await fetched_from(world, await world.payee.offer(DESCRIPTION))
    assert await world.payee.income(other.index) is None, "one that is not paid is none"


async def test_two_at_once_pay_once(world: World) -> None:
    before = await world.balance("payee")
    fetched = await fetched_from(world, await world.payee.offer(DESCRIPTION))
    ends = []

    async def pay() -> None:
        ends.append(await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pay)
        nursery.start_soon(pay)
    assert ends[0] == ends[1]
    assert await settled(world, before) == AMOUNT


async def test_a_lost_reply_is_unknown_and_the_next_call_finds_out(world: World) -> None:
    before = await world.balance("payee")
    fetched = await fetched_from(world, await world.payee.offer(DESCRIPTION))
    await world.lose_a_reply("xpay")
    with pytest.raises(OutcomeUnknown):
        await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    result = await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    assert result.preimage is not None
    assert await settled(world, before) == AMOUNT


async def test_what_cannot_be_afforded_has_failed_for_certain(world: World) -> None:
    before = await world.balance("payee")
    amount = Msat(FUNDS["payer"] * 2)
    fetched = await fetched_from(world, await world.payee.offer(DESCRIPTION), amount)
    assert (await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, amount)).preimage is None
    assert await settled(world, before) == 0


async def test_another_amount_or_hash_than_the_invoice_has_is_not_paid(world: World) -> None:
    before = await world.balance("payee")
    offer = await world.payee.offer(DESCRIPTION)
    fetched = await fetched_from(world, offer)
    assert (await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, Msat(AMOUNT + 1))).preimage is None
    assert (await world.payer.pay_fetched(fetched.bolt12, Digest("77" * 32), AMOUNT)).preimage is None
    assert await settled(world, before) == 0


async def test_an_offer_whose_node_is_away_can_be_asked_again_later(world: World) -> None:
    offer = await world.payee.offer(DESCRIPTION)
    await world.crash("payee")
    with pytest.raises(Unavailable):
        await world.payer.fetch_invoice(offer, AMOUNT)
    await world.start("payee")
    assert (await fetched_from(world, offer)).payment_hash


async def test_an_offer_that_nobody_made_or_of_another_chain_cannot_be_paid(world: World) -> None:
    issuer = parse_offer_untrusted(await world.payee.offer(DESCRIPTION)).signers[0]
    for offer in (encode_offer("regtest", "never made", issuer), encode_offer("bitcoin", DESCRIPTION, issuer), "lno1qq"):
        with pytest.raises(RemoteProtocolError):
            await world.payer.fetch_invoice(offer, AMOUNT)


async def test_our_own_node_away_is_unavailable_or_unknown(world: World) -> None:
    offer = await world.payee.offer(DESCRIPTION)
    fetched = await fetched_from(world, offer)
    await world.crash("payer")
    with pytest.raises(Unavailable):
        await world.payer.offer(DESCRIPTION)
    with pytest.raises(Unavailable):
        await world.payer.income(0)
    with pytest.raises(Unavailable):
        await world.payer.fetch_invoice(offer, AMOUNT)
    with pytest.raises(OutcomeUnknown):
        await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    await world.start("payer")
    assert (await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)).preimage is not None
