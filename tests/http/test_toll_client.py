"""The purse: what it pays for, what it refuses before money moves, and that no crash or lost reply makes it pay twice."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from nostrain.crypto.caveats import Grant, Toll
from nostrain.crypto.macaroon import Identifier, encode_identifier, mint
from nostrain.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.http.l402_wallet import TollFiles
from nostrain.http.toll_client import TollPurse
from nostrain.ports.lightning import PayResult
from nostrain.ports.tolls import Errand, TollPurchase
from nostrain.units import Digest, Msat
from nostrain.wire.l402 import format_challenges

from .ticket_world import START, Crash, Node, bolt11

BLOB = Digest("d" * 64)
GET = Errand("GET", f"http://shop.test/{BLOB}", BLOB)
PUT = Errand("PUT", "http://shop.test/upload", BLOB)
PRICE = Msat(5000)
Headers = list[tuple[str, str]]


class DyingFiles(TollFiles):
    """The wallet's files, in a process that dies after a number of writes."""

    def __init__(self, folder: Path, die_at: int = 0) -> None:
        super().__init__(folder)
        self._die_at = die_at

    async def save(self, purchase: TollPurchase) -> None:
        await super().save(purchase)
        self._die_at -= 1
        if self._die_at == 0:
            raise Crash


class Shop:
    """Makes the headers of a 402."""

    def __init__(self) -> None:
        self.node = Node()

    async def demand(self, *, l402: bool = True, bud07: bool = True, msat: Msat = PRICE, ticket: bool = False) -> Headers:
        invoice, payment_hash = await self.node.invoice(msat, "x", 600)
        identifier = encode_identifier(Identifier(bytes.fromhex(payment_hash), bytes(32)))
        sold = Grant("a" * 64, "b" * 64, "c" * 64, 10, START + 600) if ticket else Toll("GET", f"/{BLOB}", BLOB, 10, START + 600)
        macaroon = mint(bytes(32), identifier, None, sold.caveats())
        headers: Headers = [("Content-Type", "application/json")]
        headers += [("WWW-Authenticate", value) for value in format_challenges(macaroon, invoice)] if l402 else []
        return headers + ([("x-lightning", invoice)] if bud07 else [])


def purse(shop: Shop, folder: Path, ceiling: Msat = PRICE, die_at: int = 0) -> TollPurse:
    return TollPurse(shop.node, DyingFiles(folder / "tolls", die_at), ceiling)


@pytest.mark.parametrize(
    ("errand", "l402", "bud07", "header"),
    [
        (GET, True, True, "Authorization"),
        (GET, True, False, "Authorization"),
        (GET, False, True, "X-Lightning"),
        (PUT, True, True, "X-Lightning"),
        (PUT, True, False, "Authorization"),
        (PUT, False, True, "X-Lightning"),
    ],
)
async def test_pays_what_is_offered_and_shows_it(tmp_path: Path, errand: Errand, l402: bool, bud07: bool, header: str) -> None:
    shop = Shop()
    mine = purse(shop, tmp_path)
    assert await mine.show(errand) == {}
    await mine.pay(errand, await shop.demand(l402=l402, bud07=bud07))
    shown = await mine.show(errand)
    assert list(shown) == [header]
    assert shown[header].endswith(*shop.node.preimages.values())
    assert await mine.show(Errand(errand.method, errand.url + "x", BLOB)) == {}, "shown with the errand that it was bought for"
    await mine.used(errand)
    assert await mine.show(errand) == {}
    assert list((tmp_path / "tolls").iterdir()) == []


async def test_a_rounds_ticket_is_not_bought_for_an_upload(tmp_path: Path) -> None:
    """That is another price, and the ticket's buyer has it bound to its delta."""
    shop = Shop()
    with pytest.raises(RemoteProtocolError, match="a round's ticket is asked for"):
        await purse(shop, tmp_path).pay(PUT, await shop.demand(bud07=False, ticket=True))
    assert not shop.node.paid


@pytest.mark.parametrize(("errand", "l402"), [(GET, True), (GET, False), (PUT, False), (PUT, True)])
async def test_too_dear_is_not_paid(tmp_path: Path, errand: Errand, l402: bool) -> None:
    shop = Shop()
    with pytest.raises(RemoteProtocolError, match="5000 msat, 4999 is the most"):
        await purse(shop, tmp_path, Msat(4999)).pay(errand, await shop.demand(l402=l402))
    assert not shop.node.paid
    assert not (tmp_path / "tolls").exists()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("X-Lightning", "")],
        [("X-Lightning", "lnbcrt1")],
        [("X-Lightning", "A" * 100_000)],
        [("X-Lightning", bolt11("5a" * 32, None))],
        [("WWW-Authenticate", "Basic realm=x")],
        [("WWW-Authenticate", f'L402 macaroon="!!", invoice="{bolt11("5a" * 32, PRICE)}"')],
        [("WWW-Authenticate", "L402 " + "," * 9000)],
        [("WWW-Authenticate", f'L402 macaroon="AgI=", invoice="{bolt11("5a" * 32, PRICE)}"')],
    ],
)
async def test_nonsense_is_not_paid(tmp_path: Path, headers: Headers) -> None:
    shop = Shop()
    with pytest.raises(RemoteProtocolError):
        await purse(shop, tmp_path).pay(GET, headers)
    assert not shop.node.paid
    assert not (tmp_path / "tolls").exists()


async def test_a_token_sold_for_another_invoice_is_not_paid(tmp_path: Path) -> None:
    shop = Shop()
    token = (await shop.demand(bud07=False))[1][1]
    other = bolt11("5a" * 32, PRICE)
    start, _, _ = token.partition('invoice="')
    with pytest.raises(RemoteProtocolError, match="not the one that the token is sold for"):
        await purse(shop, tmp_path).pay(GET, [("WWW-Authenticate", f'{start}invoice="{other}"')])
    assert not shop.node.paid


async def test_a_server_that_asks_again_for_what_was_paid_gets_nothing_more(tmp_path: Path) -> None:
    shop = Shop()
    await purse(shop, tmp_path).pay(GET, await shop.demand())
    with pytest.raises(RemoteProtocolError, match="asks again"):
        await purse(shop, tmp_path).pay(GET, await shop.demand())
    assert len(shop.node.paid) == 1


@pytest.mark.parametrize("at", [1, 2])
async def test_a_crash_after_any_save_is_continued_with_the_same_invoice(tmp_path: Path, at: int) -> None:
    shop = Shop()
    with pytest.raises(Crash):
        await purse(shop, tmp_path, die_at=at).pay(GET, await shop.demand())
    after = purse(shop, tmp_path)
    if not await after.show(GET):
        await after.pay(GET, await shop.demand())
    assert list(await after.show(GET)) == ["Authorization"]
    assert list(shop.node.paid.values()) == shop.node.invoices[:1]


async def test_a_lost_reply_is_asked_for_and_not_repeated(tmp_path: Path) -> None:
    shop = Shop()
    shop.node.lost = 1
    with pytest.raises(Unavailable, match="not repeated"):
        await purse(shop, tmp_path).pay(GET, await shop.demand())
    await purse(shop, tmp_path).pay(GET, await shop.demand())
    assert list(shop.node.paid.values()) == shop.node.invoices[:1]


async def test_a_payment_that_failed_for_certain_gets_a_fresh_invoice(tmp_path: Path) -> None:
    shop = Shop()
    shop.node.fails = 1
    with pytest.raises(Unavailable, match="the money is back"):
        await purse(shop, tmp_path).pay(GET, await shop.demand())
    await purse(shop, tmp_path).pay(GET, await shop.demand())
    assert list(shop.node.paid.values()) == shop.node.invoices[1:]


async def test_two_at_once_pay_once(tmp_path: Path) -> None:
    shop = Shop()
    mine, refused = purse(shop, tmp_path), []

    async def buy() -> None:
        try:
            await mine.pay(GET, await shop.demand())
        except RemoteProtocolError as error:
            refused.append(error.reason)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(buy)
        nursery.start_soon(buy)
    assert len(shop.node.paid) == 1
    assert len(refused) == 1


async def test_a_node_that_lies_is_our_own_mistake(tmp_path: Path) -> None:
    class Liar(Node):
        async def pay(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
            return PayResult(payment_hash, "00" * 32)

    shop = Shop()
    shop.node = Liar()
    with pytest.raises(LocalProtocolError, match="another payment's preimage"):
        await purse(shop, tmp_path).pay(GET, await shop.demand())
