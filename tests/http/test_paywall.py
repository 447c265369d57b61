"""The paywall: every way to ask for a ticket and the status that it gets, alone and behind the real HTTP host."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx
import msgspec
import pytest
import trio
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from nostrain.crypto.caveats import Grant
from nostrain.crypto.macaroon import add_caveat, encode_identifier, mint
from nostrain.http.l402_identity import HEADER, make_identity
from nostrain.http.paywall import Paywall, PaywallLimits, paywall_app
from nostrain.http.server import serve
from nostrain.units import UnixTime
from nostrain.wire.l402 import encode_text, format_authorization, format_challenges, parse_challenges_untrusted

from .ticket_world import FEE, MAX_SIZE, NEXT_ROUND, ROUND, RUN, SERVER, SIZE, START, UNKNOWN_ROUND, Keys, World


async def test_unpaid_then_paid() -> None:
    world = World()
    response = await world.ask()
    assert response.status_code == 402
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["fee_msat"] == FEE
    challenge = parse_challenges_untrusted(response.headers.get_list("www-authenticate"))
    assert tuple(response.headers.get_list("www-authenticate")) == format_challenges(challenge.macaroon, challenge.invoice)
    assert challenge.macaroon.caveats == Grant(RUN, ROUND, world.alice.pubkey, SIZE, START + 600).caveats()
    assert world.node.expiries == [300]
    response = await world.ask(token=await world.pay(challenge))
    assert response.status_code == 200
    ticket = world.book.tickets[ROUND, world.alice.pubkey]
    assert response.json() == {"ticket": msgspec.to_builtins(ticket)}
    assert (ticket.size, ticket.payment_hash) == (SIZE, challenge.identifier.payment_hash.hex())


async def test_lsat_and_upper_case_preimages_are_taken() -> None:
    world = World()
    token = await world.bought()
    assert (await world.ask(token=token.replace("L402", "LSAT", 1))).status_code == 200
    text, _, preimage = token.rpartition(":")
    assert (await world.ask(token=f"{text}:{preimage.upper()}")).status_code == 200


async def test_the_same_token_again_and_no_token_give_the_same_ticket() -> None:
    world = World()
    token = await world.bought()
    first = await world.ask(token=token)
    assert (await world.ask(token=token)).json() == first.json()
    assert (await world.ask()).json() == first.json()
    assert len(world.node.invoices) == 1


async def test_a_second_paid_token_changes_nothing() -> None:
    world = World()
    one, two = await world.bought(), await world.bought()
    first = await world.ask(token=one)
    assert (await world.ask(token=two)).json() == first.json()


async def test_a_wrong_preimage_is_401() -> None:
    world = World()
    challenge = await world.challenge()
    for preimage in ("00" * 32, challenge.identifier.payment_hash.hex()):
        response = await world.ask(token=format_authorization(challenge.text, preimage))
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "L402"
    assert not world.book.tickets


async def test_a_token_paid_for_another_is_401() -> None:
    world = World()
    mine, other = await world.challenge(), await world.bought()
    assert (await world.ask(token=format_authorization(mine.text, other.rpartition(":")[2]))).status_code == 401


async def test_a_forged_token_is_401() -> None:
    world = World()
    challenge = await world.challenge()
    token = await world.pay(challenge)
    preimage = token.rpartition(":")[2]
    grant = Grant(RUN, ROUND, world.alice.pubkey, SIZE, START + 600)
    for forged in (
        mint(Keys("another server").ticket_key(challenge.identifier.token), challenge.macaroon.identifier, None, grant.caveats()),
        replace(challenge.macaroon, caveats=replace(grant, size=MAX_SIZE).caveats()),
        replace(challenge.macaroon, identifier=encode_identifier(challenge.identifier._replace(token=bytes(32)))),
        replace(challenge.macaroon, signature=bytes(32)),
    ):
        assert (await world.ask(token=format_authorization(encode_text(forged), preimage))).status_code == 401
    assert not world.book.tickets


async def test_another_workers_token_is_403() -> None:
    world = World()
    token = await world.bought(world.bob)
    response = await world.ask(token=token)
    assert response.status_code == 403
    assert "another worker" in response.headers["x-reason"]
    assert (await world.ask(world.bob, token=token)).status_code == 200


async def test_another_rounds_token_is_403() -> None:
    world = World()
    response = await world.ask(url=world.url(NEXT_ROUND), token=await world.bought())
    assert response.status_code == 403
    assert "another round" in response.headers["x-reason"]


@pytest.mark.parametrize("caveat", [b"services=blob:0", b"size=99999999", b"round=" + NEXT_ROUND.encode(), b"\xff"])
async def test_conditions_that_we_do_not_know_or_that_widen_are_403(caveat: bytes) -> None:
    world = World()
    challenge = await world.challenge()
    preimage = (await world.pay(challenge)).rpartition(":")[2]
    text = encode_text(add_caveat(challenge.macaroon, caveat))
    assert (await world.ask(token=format_authorization(text, preimage))).status_code == 403
    assert not world.book.tickets


async def test_a_holder_may_narrow() -> None:
    world = World()
    challenge = await world.challenge()
    preimage = (await world.pay(challenge)).rpartition(":")[2]
    narrowed = format_authorization(encode_text(add_caveat(challenge.macaroon, b"size=1000")), preimage)
    assert (await world.ask(token=narrowed)).status_code == 413
    assert (await world.ask(url=world.url(size=1000), token=narrowed)).json()["ticket"]["size"] == 1000


async def test_oversized_is_413() -> None:
    world = World()
    assert (await world.ask(url=world.url(size=MAX_SIZE + 1))).status_code == 413
    assert (await world.ask(url=world.url(size=SIZE + 1), token=await world.bought())).status_code == 413
    assert (await world.ask(url=world.url(size=MAX_SIZE))).status_code == 402


async def test_more_bytes_than_the_ticket_held_is_409() -> None:
    world = World()
    await world.ask(token=await world.bought())
    assert (await world.ask(url=world.url(size=SIZE + 1))).status_code == 409
    assert (await world.ask(url=world.url(size=SIZE - 1))).status_code == 200


async def test_unknown_rounds_are_404_and_strangers_403() -> None:
    world = World()
    assert (await world.ask(url=world.url(UNKNOWN_ROUND))).status_code == 404
    assert (await world.ask(world.stranger)).status_code == 403
    assert not world.node.invoices


async def test_after_the_sale_it_is_410_but_what_was_paid_can_be_claimed_until_it_expires() -> None:
    world = World()
    token, late = await world.bought(), await world.bought(world.bob)
    world.clock.time = UnixTime(START + 300)
    assert (await world.ask()).status_code == 410
    assert (await world.ask(token=token)).status_code == 200
    world.clock.time = UnixTime(START + 600)
    assert (await world.ask(world.bob, token=late)).status_code == 410
    assert (await world.ask()).status_code == 200, "a ticket that was claimed is still told"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?",
        f"?announcement={ROUND}",
        f"?size={SIZE}",
        f"?announcement={ROUND}&size={SIZE}&size=1",
        f"?announcement={ROUND}&size={SIZE}&more=1",
        f"?announcement={ROUND[:-1]}&size={SIZE}",
        f"?announcement={ROUND.upper()[:-2]}AA&size={SIZE}",
        *(f"?announcement={ROUND}&size={size}" for size in ("0", "-1", "1.5", "x", "", "%31%30x", "٣", "9" * 40)),
    ],
)
async def test_malformed_queries_are_400(query: str) -> None:
    assert (await World().ask(url=f"{SERVER}/ticket{query}")).status_code == 400


@pytest.mark.parametrize("token", ["", "L402", "L402 x:y", "L402 AgI=:" + "00" * 32, "Nostr abc", "Bearer x", "L402 " + "A" * 9000 + ":00"])
async def test_malformed_tokens_are_400(token: str) -> None:
    world = World()
    assert (await world.ask(token=token)).status_code == 400
    assert not world.node.invoices


async def test_two_tokens_and_bodies_are_400() -> None:
    world = World()
    url, token = world.url(), await world.bought()
    identity = (HEADER, make_identity(world.alice, "POST", url, world.clock.now()))
    response = await world.http.post(url, headers=[identity, ("Authorization", token), ("Authorization", token)])
    assert response.status_code == 400
    assert (await world.http.post(url, headers=[identity], content=b"body")).status_code == 400


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
async def test_other_methods_are_405(method: str) -> None:
    world = World()
    assert (await world.http.request(method, world.url())).status_code == 405


async def test_too_many_requests_of_one_worker_are_429_until_time_passes() -> None:
    world = World(PaywallLimits(requests=3, window_s=60))
    for _ in range(3):
        assert (await world.ask()).status_code == 402
    world.clock.time = UnixTime(START + 59)
    refused = await world.ask()
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "1"
    assert (await world.ask(world.bob)).status_code == 402
    world.clock.time = UnixTime(START + 60)
    assert (await world.ask()).status_code == 402


async def test_a_node_that_is_away_is_503_and_nothing_is_lost() -> None:
    world = World()
    world.node.down = True
    assert (await world.ask()).status_code == 503
    world.node.down = False
    token = await world.bought()
    world.book.failing = True
    refused = await world.ask(token=token)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "5"
    assert (await world.ask(token=token)).status_code == 200


async def test_other_paths_are_the_other_applications() -> None:
    async def rest(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(f"rest {scope['path']}")(scope, receive, send)

    world = World()
    async with world.client(paywall_app(world.paywall, rest)) as http:
        assert (await http.get(f"{SERVER}/upload")).text == "rest /upload"
        assert (await http.post(f"{SERVER}/ticket")).status_code == 400
    assert (await world.http.get(f"{SERVER}/upload")).status_code == 404


async def test_behind_the_real_host() -> None:
    world = World()
    paywall = Paywall(world.book, world.node, world.keys, world.clock, world.entropy)
    async with trio.open_nursery() as nursery:
        base = await nursery.start(serve, paywall_app(paywall), "127.0.0.1:0")
        url = f"{base}/ticket?announcement={ROUND}&size={SIZE}"
        async with httpx.AsyncClient(trust_env=False) as http:
            identity = {HEADER: make_identity(world.alice, "POST", url, world.clock.now())}
            response = await http.post(url, headers=identity)
            assert response.status_code == 402
            challenge = parse_challenges_untrusted(response.headers.get_list("www-authenticate"))
            token = await world.pay(challenge)
            paid = await http.post(url, headers=identity | {"Authorization": token})
            assert paid.status_code == 200
            assert json.loads(paid.content)["ticket"]["worker"] == world.alice.pubkey
            assert (await http.post(url, headers=identity, content=b"x" * 100)).status_code == 400
        nursery.cancel_scope.cancel()
