"""Too many requests are 429, each address and each credential on its own, in bounded memory."""

from __future__ import annotations

import httpx
import pytest
import trio
import trio.testing
from starlette.responses import PlainTextResponse

from nostrain.http import rates
from nostrain.http.rates import RateLimit, Rates

TIGHT = Rates(address=3, token=2)


class Server:
    """The layer over an application that says yes."""

    def __init__(self, limits: Rates = TIGHT) -> None:
        self.app = RateLimit(PlainTextResponse("yes"), limits)

    async def ask(self, address: str = "192.0.2.1", **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app, client=(address, 1))) as http:
            return await http.get("http://server.test/", headers=sent)

    async def statuses(self, count: int, address: str = "192.0.2.1", **headers: str) -> list[int]:
        return [(await self.ask(address, **headers)).status_code for _ in range(count)]


async def test_an_address_that_asks_too_often_is_told_when_to_come_back(autojump_clock: trio.testing.MockClock) -> None:
    server = Server()
    assert await server.statuses(3) == [200] * 3
    refused = await server.ask()
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "20")
    assert refused.json()["message"] == refused.headers["x-reason"] == "too many requests"
    await trio.sleep(20)
    assert await server.statuses(2) == [200, 429]
    await trio.sleep(1000)
    assert await server.statuses(4) == [200, 200, 200, 429], "never more than a minute's worth"


async def test_others_are_not_affected(autojump_clock: trio.testing.MockClock) -> None:
    server = Server()
    await server.statuses(4)
    assert (await server.ask("192.0.2.2")).status_code == 200


async def test_a_host_has_all_of_its_ipv6_network_and_one_ipv4_address(autojump_clock: trio.testing.MockClock) -> None:
    server = Server()
    assert [await server.statuses(1, f"2001:db8::{index}") for index in range(4)] == [[200], [200], [200], [429]]
    assert await server.statuses(1, "2001:db8:0:1::1") == [200]
    assert await server.statuses(3, "::ffff:192.0.2.1") == [200] * 3
    assert await server.statuses(1, "192.0.2.1") == [429]


@pytest.mark.parametrize("header", ["Authorization", "X_Lightning"])
async def test_a_credential_is_counted_wherever_it_comes_from(autojump_clock: trio.testing.MockClock, header: str) -> None:
    server = Server()
    found = [(await server.ask(f"192.0.2.{index}", **{header: "L402 abc:def"})).status_code for index in range(3)]
    assert found == [200, 200, 429]
    assert await server.statuses(1, "192.0.2.9", **{header: "L402 other:def"}) == [200]


async def test_forwarded_addresses_count_behind_a_proxy_of_ours_only(autojump_clock: trio.testing.MockClock) -> None:
    open_, behind = Server(), Server(Rates(address=1, token=9, proxy=True))
    for index in range(3):
        assert await open_.statuses(1, X_Forwarded_For=f"198.51.100.{index}") == [200]
        assert await behind.statuses(1, X_Forwarded_For=f"spoofed, 198.51.100.{index}") == [200]
    assert await open_.statuses(1, X_Forwarded_For="198.51.100.9") == [429]
    assert await behind.statuses(1, X_Forwarded_For="192.0.2.77, 198.51.100.1") == [429]
    assert await behind.statuses(2, X_Forwarded_For="not an address") == [200, 429]


async def test_memory_is_bounded_and_the_silent_are_forgotten_first(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "BUCKETS", 4)
    server = Server(Rates(address=1, token=1))
    for index in range(10):
        await server.ask(f"192.0.2.{index}", Authorization=f"L402 {index}")
    assert len(server.app._addresses._left) == len(server.app._tokens._left) == 4
    assert await server.statuses(1, "192.0.2.9") == [429]
    assert await server.statuses(1, "192.0.2.0") == [200]
