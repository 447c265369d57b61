"""The BOLT 12 half of `ports.lightning.Lightning`: one suite on the fake, and on the real client with the simnet in a process of its own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import trio

from nostrain.errors import OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.lightning.client import ClnLightning
from nostrain.lightning.rpc import ClnRpc
from nostrain.ports.lightning import Lightning
from nostrain.testing.lightning import FakeLedger, FakeLightning
from nostrain.units import Digest, Msat
from nostrain.wire.bolt12_invoice import check_answers_untrusted, parse_invoice_untrusted
from nostrain.wire.bolt12_offer import encode_offer, parse_offer_untrusted

PATIENCE_S = 10
FUNDS = {"payer": Msat(1_000_000_000), "payee": Msat(20_000_000)}
AMOUNT = Msat(13_333)
DESCRIPTION = "shares of a run"


class World(Protocol):
    """Two nodes with a channel, and what a test may do to them."""

    payer: Lightning
    payee: Lightning

    async def balance(self, name: str) -> int: ...
    async def crash(self, name: str) -> None: ...
    async def start(self, name: str) -> None: ...
    async def lose_a_reply(self) -> None: ...


class FakeWorld:
    """The fake ledger."""

    def __init__(self) -> None:
        self._ledger = FakeLedger(lambda: 800_000, balances=dict(FUNDS))
        self.payer, self.payee = FakeLightning(self._ledger, "payer"), FakeLightning(self._ledger, "payee")

    async def balance(self, name: str) -> int:
        return self._ledger.balances[name]

    async def crash(self, name: str) -> None:
        self._ledger.crash(name)

    async def start(self, name: str) -> None:
        self._ledger.start(name)

    async def lose_a_reply(self) -> None:
        self._ledger.lost_replies += 1


class SimnetWorld:
    """The simnet, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._control = ClnRpc(folder / "simnet-rpc")
        self.payer, self.payee = (ClnLightning(folder / name / "lightning-rpc") for name in FUNDS)

    async def control(self, what: str, /, **params: object) -> Any:
        return await self._control.call(f"simnet-{what}", params, dict, timeout_s=PATIENCE_S)

    async def balance(self, name: str) -> int:
        return int((await self.control("balances"))["nodes"][name]["balance_msat"])

    async def crash(self, name: str) -> None:
        await self.control("fault", kind="crash", node=name)

    async def start(self, name: str) -> None:
        await self.control("fault", kind="start", node=name)

    async def lose_a_reply(self) -> None:
        await self.control("fault", kind="lose-reply", node="payer", method="xpay")


@pytest.fixture(scope="module")
def simnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("offers")
    nodes = ",".join(f"{name}={amount}" for name, amount in FUNDS.items())
    command = [sys.executable, "-m", "nostrain.devnet.simnet", "--dir", str(folder), "--nodes", nodes]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "test network" in process.stdout.readline()
        yield folder
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


@pytest.fixture(params=["fake", "simnet"])
def world(request: pytest.FixtureRequest) -> World:
    return FakeWorld() if request.param == "fake" else SimnetWorld(request.getfixturevalue("simnet"))


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
    one, other = await world.payer.fetch_invoice(offer, AMOUNT), await world.payer.fetch_invoice(offer, AMOUNT)
    assert one.payment_hash != other.payment_hash
    read = parse_invoice_untrusted(one.bolt12)
    check_answers_untrusted(read, parse_offer_untrusted(offer), AMOUNT, "regtest")
    assert read.payment_hash == one.payment_hash
    assert await world.balance("payer") == before, "no money moves"


async def test_a_fetched_invoice_is_paid_once_however_often_it_is_asked_for(world: World) -> None:
    before = await world.balance("payee")
    fetched = await world.payer.fetch_invoice(await world.payee.offer(DESCRIPTION), AMOUNT)
    first = await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    again = await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    assert first == again
    assert first.preimage is not None
    assert hashlib.sha256(bytes.fromhex(first.preimage)).hexdigest() == fetched.payment_hash
    assert await settled(world, before) == AMOUNT


async def test_two_at_once_pay_once(world: World) -> None:
    before = await world.balance("payee")
    fetched = await world.payer.fetch_invoice(await world.payee.offer(DESCRIPTION), AMOUNT)
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
    fetched = await world.payer.fetch_invoice(await world.payee.offer(DESCRIPTION), AMOUNT)
    await world.lose_a_reply()
    with pytest.raises(OutcomeUnknown):
        await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    result = await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    assert result.preimage is not None
    assert await settled(world, before) == AMOUNT


async def test_what_cannot_be_afforded_has_failed_for_certain(world: World) -> None:
    before = await world.balance("payee")
    amount = Msat(FUNDS["payer"] * 2)
    fetched = await world.payer.fetch_invoice(await world.payee.offer(DESCRIPTION), amount)
    assert (await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, amount)).preimage is None
    assert await settled(world, before) == 0


async def test_another_amount_or_hash_than_the_invoice_has_is_not_paid(world: World) -> None:
    before = await world.balance("payee")
    offer = await world.payee.offer(DESCRIPTION)
    fetched = await world.payer.fetch_invoice(offer, AMOUNT)
    assert (await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, Msat(AMOUNT + 1))).preimage is None
    assert (await world.payer.pay_fetched(fetched.bolt12, Digest("77" * 32), AMOUNT)).preimage is None
    assert await settled(world, before) == 0


async def test_an_offer_whose_node_is_away_can_be_asked_again_later(world: World) -> None:
    offer = await world.payee.offer(DESCRIPTION)
    await world.crash("payee")
    with pytest.raises(Unavailable):
        await world.payer.fetch_invoice(offer, AMOUNT)
    await world.start("payee")
    assert (await world.payer.fetch_invoice(offer, AMOUNT)).payment_hash


async def test_an_offer_that_nobody_made_or_of_another_chain_cannot_be_paid(world: World) -> None:
    issuer = parse_offer_untrusted(await world.payee.offer(DESCRIPTION)).signers[0]
    for offer in (encode_offer("regtest", "never made", issuer), encode_offer("bitcoin", DESCRIPTION, issuer), "lno1qq"):
        with pytest.raises(RemoteProtocolError):
            await world.payer.fetch_invoice(offer, AMOUNT)


async def test_our_own_node_away_is_unavailable_or_unknown(world: World) -> None:
    offer = await world.payee.offer(DESCRIPTION)
    fetched = await world.payer.fetch_invoice(offer, AMOUNT)
    await world.crash("payer")
    with pytest.raises(Unavailable):
        await world.payer.offer(DESCRIPTION)
    with pytest.raises(Unavailable):
        await world.payer.fetch_invoice(offer, AMOUNT)
    with pytest.raises(OutcomeUnknown):
        await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)
    await world.start("payer")
    assert (await world.payer.pay_fetched(fetched.bolt12, fetched.payment_hash, AMOUNT)).preimage is not None
