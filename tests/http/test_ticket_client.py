"""The buyer of tickets: one payment whatever breaks, a ceiling, and servers that sell something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import pytest
import trio
import trio.testing
from starlette.requests import Request
from starlette.responses import Response

from nostrain.crypto.caveats import Grant
from nostrain.crypto.macaroon import Identifier, encode_identifier, mint
from nostrain.errors import LocalProtocolError, OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.http.l402_client import ANSWER_S, TicketClient
from nostrain.http.l402_wallet import FileWallet
from nostrain.ports.tickets import Purchase, Ticket, TicketWallet
from nostrain.units import Digest, EventId, Msat, UnixTime
from nostrain.wire.l402 import format_challenges

from .ticket_world import FEE, NEXT_ROUND, ROUND, RUN, SERVER, SIZE, START, UNKNOWN_ROUND, Crash, Wallet, World, bolt11

GRANT = Grant(RUN, ROUND, "", SIZE, START + 600)
HASH = bytes.fromhex("5a" * 32)


def buyer(world: World, wallet: TicketWallet, http: httpx.AsyncClient | None = None) -> TicketClient:
    return TicketClient(http or world.http, world.alice, world.clock, world.node, wallet)


async def buy(client: TicketClient, ceiling: Msat = FEE, round_: EventId = ROUND, size: int = SIZE) -> Ticket:
    return await client.buy_ticket(SERVER, RUN, round_, size, ceiling)


async def test_buys_once() -> None:
    world, wallet = World(), Wallet()
    ticket = await buy(buyer(world, wallet))
    assert ticket == world.book.tickets[ROUND, world.alice.pubkey]
    assert await buy(buyer(world, wallet)) == ticket
    assert len(world.node.paid) == 1


@pytest.mark.parametrize("server", ["http://xn--a.example", "https://xn--.example"])
async def test_a_server_whose_name_cannot_be_resolved_is_unavailable(server: str) -> None:
    world = World()
    with pytest.raises(Unavailable):
        await buyer(world, Wallet()).buy_ticket(server, RUN, ROUND, SIZE, FEE)


async def test_a_wallet_that_was_lost_costs_nothing() -> None:
    world = World()
    ticket = await buy(buyer(world, Wallet()))
    assert await buy(buyer(world, Wallet())) == ticket
    assert len(world.node.invoices) == 1


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_a_crash_after_any_save_is_continued_without_paying_again(at: int) -> None:
    world, wallet = World(), Wallet()
    wallet.crash_at = at
    with pytest.raises(Crash):
        await buy(buyer(world, wallet))
    ticket = await buy(buyer(world, wallet))
    assert ticket == world.book.tickets[ROUND, world.alice.pubkey]
    assert len(world.node.paid) == len(world.node.invoices) == 1


async def test_an_unknown_outcome_is_asked_again_with_the_same_invoice() -> None:
    world, wallet = World(), Wallet()
    world.node.lost = 1
    with pytest.raises(OutcomeUnknown):
        await buy(buyer(world, wallet))
    await buy(buyer(world, wallet))
    assert len(world.node.paid) == len(world.node.invoices) == 1


async def test_a_payment_that_failed_for_certain_is_tried_with_a_fresh_invoice() -> None:
    world, wallet = World(), Wallet()
    world.node.fails = 1
    with pytest.raises(Unavailable, match="the money is back"):
        await buy(buyer(world, wallet))
    await buy(buyer(world, wallet))
    assert (len(world.node.paid), len(world.node.invoices)) == (1, 2)


async def test_a_server_that_fails_after_the_payment_is_asked_again() -> None:
    world, wallet = World(), Wallet()
    world.book.failing = True
    with pytest.raises(Unavailable, match="HTTP 503"):
        await buy(buyer(world, wallet))
    assert (await buy(buyer(world, wallet))).size == SIZE
    assert len(world.node.paid) == 1


async def test_nothing_is_paid_above_the_ceiling() -> None:
    world, wallet = World(), Wallet()
    with pytest.raises(RemoteProtocolError, match=f"costs {FEE} msat"):
        await buy(buyer(world, wallet), Msat(FEE - 1))
    wallet.crash_at = 1
    with pytest.raises(Crash):
        await buy(buyer(world, wallet))
    with pytest.raises(RemoteProtocolError, match=f"costs {FEE} msat"):
        await buy(buyer(world, wallet), Msat(FEE - 1))
    assert not world.node.paid


async def test_a_purchase_for_fewer_bytes_is_not_stretched() -> None:
    world, wallet = World(), Wallet()
    await buy(buyer(world, wallet))
    with pytest.raises(RemoteProtocolError, match="bought for"):
        await buy(buyer(world, wallet), size=SIZE + 1)


async def test_refusals_for_good_and_for_now() -> None:
    world, wallet = World(), Wallet()
    with pytest.raises(Unavailable, match="HTTP 404"):
        await buy(buyer(world, wallet), round_=UNKNOWN_ROUND)
    with pytest.raises(RemoteProtocolError, match="HTTP 413"):
        await buy(buyer(world, wallet), size=1 << 30)
    world.clock.time = UnixTime(START + 400)
    with pytest.raises(RemoteProtocolError, match="HTTP 410 no more tickets"):
        await buy(buyer(world, wallet))


def served(answer: Callable[[Request], Response]) -> httpx.AsyncClient:
    """A client of a server that always answers so."""

    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        await answer(Request(scope))(scope, receive, send)  # type: ignore[arg-type]

    return World.client(app)  # type: ignore[arg-type]


def challenge(grant: Grant, invoice: str = bolt11(HASH.hex(), FEE)) -> Response:
    macaroon = mint(b"k", encode_identifier(Identifier(HASH, bytes(32))), None, grant.caveats())
    response = Response(status_code=402)
    for value in format_challenges(macaroon, invoice):
        response.headers.append("WWW-Authenticate", value)
    return response


@pytest.mark.parametrize(
    ("change", "invoice", "reason"),
    [
        ({"worker": "66" * 32}, None, "another run, round or worker"),
        ({"round": NEXT_ROUND}, None, "another run, round or worker"),
        ({"run": "77" * 32}, None, "another run, round or worker"),
        ({"size": SIZE - 1}, None, f"for {SIZE - 1} bytes"),
        ({"expires": START}, None, "has expired"),
        ({}, bolt11(HASH.hex(), None), "costs None msat"),
        ({}, bolt11(HASH.hex(), Msat(FEE + 1)), "is the most that we pay"),
        ({}, bolt11("5b" * 32, FEE), "not the one that the token is sold for"),
        ({}, "garbage", "not bech32"),
    ],
)
async def test_what_was_not_asked_for_is_not_paid(change: dict[str, str | int], invoice: str | None, reason: str) -> None:
    world, wallet = World(), Wallet()
    fields = {"run": RUN, "round": ROUND, "worker": world.alice.pubkey, "size": SIZE, "expires": START + 600} | change
    grant = Grant(**fields)  # type: ignore[arg-type]
    answer = challenge(grant) if invoice is None else challenge(grant, invoice)
    with pytest.raises(RemoteProtocolError, match=reason):
        await buy(buyer(world, wallet, served(lambda _: answer)))
    assert not world.node.paid
    assert not wallet.saved


async def test_a_payer_that_shows_another_preimage_is_our_fault() -> None:
    world, wallet = World(), Wallet()
    invoice, payment_hash = await world.node.invoice(FEE, "", 60)
    world.node.preimages[payment_hash] = "00" * 32
    macaroon = mint(b"k", encode_identifier(Identifier(bytes.fromhex(payment_hash), bytes(32))), None, _mine(world).caveats())
    response = Response(status_code=402, headers={"WWW-Authenticate": format_challenges(macaroon, invoice)[0]})
    with pytest.raises(LocalProtocolError, match="another payment's preimage"):
        await buy(buyer(world, wallet, served(lambda _: response)))


def _mine(world: World) -> Grant:
    return Grant(RUN, ROUND, world.alice.pubkey, SIZE, START + 600)


@pytest.mark.parametrize(
    ("response", "error", "reason"),
    [
        (Response(b"{}"), RemoteProtocolError, "not a ticket"),
        (Response(b"\xff"), RemoteProtocolError, "not a ticket"),
        (Response(b"[" * 5000), RemoteProtocolError, "not a ticket"),
        (Response(b" " * 20_000), RemoteProtocolError, "more than"),
        (Response(status_code=402), RemoteProtocolError, "no L402 challenge"),
        (Response(status_code=302, headers={"Location": "http://elsewhere.test/"}), Unavailable, "HTTP 302"),
        (Response(status_code=500), Unavailable, "HTTP 500"),
        (Response(status_code=429), Unavailable, "HTTP 429"),
        (Response(status_code=403, headers={"X-Reason": "no\x1b[31m"}), RemoteProtocolError, r"HTTP 403 no\\x1b"),
    ],
)
async def test_hostile_answers(response: Response, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        await buy(buyer(World(), Wallet(), served(lambda _: response)))


async def test_another_ticket_is_refused() -> None:
    world = World()
    for change in ({"announcement": NEXT_ROUND}, {"worker": world.bob.pubkey}, {"size": SIZE - 1}):
        fields = {"announcement": ROUND, "worker": world.alice.pubkey, "size": SIZE, "token": "00" * 32, "payment_hash": "00" * 32}
        body = msgspec.json.encode({"ticket": fields | change})
        with pytest.raises(RemoteProtocolError, match="another ticket"):
            await buy(buyer(world, Wallet(), served(lambda _, body=body: Response(body))))  # type: ignore[misc]


async def test_a_server_that_asks_twice_is_refused_and_the_proof_of_payment_kept() -> None:
    world, wallet = World(), Wallet()
    wallet.crash_at = 2
    with pytest.raises(Crash):
        await buy(buyer(world, wallet))
    answer = challenge(Grant(RUN, ROUND, world.alice.pubkey, SIZE, START + 600))
    with pytest.raises(RemoteProtocolError, match="asks again"):
        await buy(buyer(world, wallet, served(lambda _: answer)))
    assert wallet.saved[ROUND].preimage is not None
    assert len(world.node.paid) == 1


async def test_silent_servers_are_given_up(autojump_clock: trio.testing.MockClock) -> None:
    async def silent(scope: object, receive: object, send: object) -> None:
        await trio.sleep_forever()

    with pytest.raises(Unavailable, match="no answer within"):
        await buy(buyer(World(), Wallet(), World.client(silent)))  # type: ignore[arg-type]
    assert trio.current_time() >= ANSWER_S


async def test_unreachable_servers_are_unavailable() -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(Unavailable):
            await buyer(World(), Wallet(), http).buy_ticket("http://127.0.0.1:1", RUN, ROUND, SIZE, FEE)


async def test_file_wallet_keeps_forgets_and_hides(tmp_path: Path) -> None:
    wallet = FileWallet(tmp_path / "tickets")
    assert await wallet.load(ROUND) is None
    await wallet.forget(ROUND)
    ticket = Ticket(ROUND, World().alice.pubkey, SIZE, Digest("00" * 32), Digest("11" * 32))
    for purchase in (Purchase(ROUND, SIZE, "AgI=", "lnbc"), Purchase(ROUND, SIZE, "AgI=", "lnbc", "22" * 32, ticket)):
        await wallet.save(purchase)
        assert await FileWallet(tmp_path / "tickets").load(ROUND) == purchase
    (file,) = (tmp_path / "tickets").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    await wallet.forget(ROUND)
    assert await wallet.load(ROUND) is None


async def test_file_wallet_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        await FileWallet(tmp_path / "file").save(Purchase(ROUND, SIZE, "", ""))
    (tmp_path / f"{ROUND}.json").write_text("{")
    with pytest.raises(Unavailable):
        await FileWallet(tmp_path).load(ROUND)
    with pytest.raises(LocalProtocolError):
        await FileWallet(tmp_path).load(EventId("../x"))


async def test_the_whole_purchase_with_files(tmp_path: Path) -> None:
    world = World()
    ticket = await buy(buyer(world, FileWallet(tmp_path)))
    assert await buy(buyer(world, FileWallet(tmp_path))) == ticket
    assert len(world.node.paid) == 1
