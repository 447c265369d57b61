"""What a relay says of itself (NIP-11): read leniently, obeyed, never waited for. The pool against scripted relays, in virtual time."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr.information import http_information
from nostrain.nostr.limits import MAX_DOCUMENT_BYTES, Limits, parse_information_untrusted
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.protocol.event import Event, Filter
from nostrain.units import UnixTime
from tests.nostr.scripted_relay import ScriptedRelay, dial, note

WANTED = Filter(kinds=(8650,))
NOW = UnixTime(100_000)


def document(**limitation: Any) -> bytes:
    return json.dumps({"name": "a relay", "limitation": limitation}).encode()


def informed(
    says: bytes | Callable[[], Any], now: Callable[[], UnixTime] = lambda: NOW, **relays: ScriptedRelay
) -> AbstractAsyncContextManager[RelayPool]:
    """A pool whose relay `a` has an information document; the others have none."""

    async def inform(url: str) -> bytes:
        if url != "ws://a":
            raise Unavailable("status 404")
        return says if isinstance(says, bytes) else await says()

    urls = [f"ws://{name}" for name in relays]
    return open_pool(urls, rng=random.Random(7), now=now, connect=dial(**relays), inform=inform)


async def take(events: trio.MemoryReceiveChannel[Event], count: int) -> list[str]:
    with trio.fail_after(1_000):
        return [(await events.receive()).content for _ in range(count)]


async def test_pages_are_no_larger_than_the_relay_answers(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(*(note(str(i), created_at=1_000 + i) for i in range(90)), cap=30)
    async with informed(document(max_limit=30), a=relay) as relays:
        await wait_all_tasks_blocked()
        async with relays.subscribe([WANTED]) as events:
            assert sorted(await take(events, 90), key=int) == [str(i) for i in range(90)]
            assert {message[2]["limit"] for message in relay.requests()} == {30}


async def test_an_event_that_is_too_large_is_not_sent_there_and_that_is_said_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    small, other = ScriptedRelay(), ScriptedRelay()
    large = [note("x" * size, created_at=size) for size in (3_000, 4_000, 5_000)]
    async with informed(document(max_message_length=2_048), a=small, b=other) as relays:
        await wait_all_tasks_blocked()
        for event in (*large, fits := note("fits")):
            await relays.publish(event)
        await trio.sleep(60)
        assert other.published() == [event.id for event in (*large, fits)]
        assert small.published() == [fits.id]
        assert relays.counts["not taken there"] >= 3
    assert sum("not sent there" in record.getMessage() for record in caplog.records) == 1


async def test_a_relay_that_takes_nothing_is_a_refusal_and_no_quorum(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with informed(document(max_content_length=1), a=relay) as relays:
        await wait_all_tasks_blocked()
        with pytest.raises(RemoteProtocolError, match="2 characters of content, it takes 1"):
            await relays.publish(note("ab"))
        await relays.publish(note("a"))
        assert len(relay.published()) == 1


async def test_no_more_subscriptions_than_allowed_and_history_is_read_all_the_same(autojump_clock: MockClock) -> None:
    class Counts(ScriptedRelay):
        most = 0

        def on_req(self, wire: Any, name: str, wanted: Filter) -> None:
            super().on_req(wire, name, wanted)
            self.most = max(self.most, len(wire.subscriptions))

    relay = Counts(*(note(str(i), created_at=1_000 + i) for i in range(60)), cap=20)
    async with informed(document(max_subscriptions=3, max_limit=20), a=relay) as relays:
        await wait_all_tasks_blocked()
        async with relays.subscribe([WANTED, Filter(kinds=(1,)), Filter(kinds=(2,))]) as events:
            assert len(await take(events, 60)) == 60
            await wait_all_tasks_blocked()
            assert relay.most == 3
            assert set(relay.wire.subscriptions) == {"1.0", "1.1"}
            async with relays.subscribe([Filter(kinds=(3,))]):
                await wait_all_tasks_blocked()
                assert "2.0" not in relay.wire.subscriptions
        await wait_all_tasks_blocked()
        async with relays.subscribe([Filter(kinds=(3,))]):
            await wait_all_tasks_blocked()
            assert "3.0" in relay.wire.subscriptions


async def test_a_place_that_is_left_goes_to_who_waits(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with informed(document(max_subscriptions=2), a=relay) as relays, relays.subscribe([Filter(kinds=(3,))]):
        await wait_all_tasks_blocked()
        async with relays.subscribe([WANTED]) as events:
            await wait_all_tasks_blocked()
            relay.wire.say("CLOSED", "1.0", "blocked: not here")
            await wait_all_tasks_blocked()
            assert "2.0" in relay.wire.subscriptions
            relay.broadcast(note("live"))
            assert await take(events, 1) == ["live"]


async def test_dates_that_the_relay_does_not_take(autojump_clock: MockClock) -> None:
    relay, started = ScriptedRelay(), trio.current_time()
    says = document(created_at_lower_limit=1_000, created_at_upper_limit=60)
    async with informed(says, now=lambda: UnixTime(int(NOW + trio.current_time() - started)), a=relay) as relays:
        await wait_all_tasks_blocked()
        with pytest.raises(RemoteProtocolError, match="it takes 1000"):
            await relays.publish(note("old", created_at=NOW - 2_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(relays.publish, early := note("early", created_at=NOW + 80))
            await trio.sleep(10)
            assert relay.published() == []
        assert relay.published() == [early.id]
        assert trio.current_time() - started >= 20


@pytest.mark.parametrize("says", [b"", b"[]", b"{", b"\xff", b"[" * 50_000, b'{"limitation": 7}', b" " * (MAX_DOCUMENT_BYTES + 1)])
async def test_a_document_that_cannot_be_read_limits_nothing(says: bytes, autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("x"))
    async with informed(says, a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["x"]
        await relays.publish(note("y" * 5_000))
        assert relay.requests()[0][2]["limit"] == 500


async def test_a_relay_that_never_answers_over_http_is_used_at_once(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("x"))
    async with informed(trio.sleep_forever, a=relay) as relays, relays.subscribe([WANTED]) as events:
        began = trio.current_time()
        assert await take(events, 1) == ["x"]
        await relays.publish(note("y"))
        assert trio.current_time() == began


async def test_it_is_asked_once_an_hour_however_often_it_hangs_up(autojump_clock: MockClock) -> None:
    asked = []

    async def says() -> bytes:
        asked.append(trio.current_time())
        return document(max_limit=30)

    class HangsUp(ScriptedRelay):
        def on_req(self, wire: Any, name: str, wanted: Filter) -> None:
            wire.drop()

    relay = HangsUp()
    async with informed(says, a=relay) as relays, relays.subscribe([WANTED]):
        await trio.sleep(3 * 3_600 + 300)
    assert relay.dials > 100
    assert len(asked) == 4


async def test_what_may_keep_us_from_writing_is_said(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    relay = ScriptedRelay()
    async with informed(document(payment_required=True, restricted_writes=True, min_pow_difficulty=20), a=relay) as relays:
        await trio.sleep(4 * 3_600)
        await relays.publish(note("tried all the same"))
        assert len(relay.published()) == 1
    said = [record.getMessage() for record in caplog.records if "may be refused" in record.getMessage()]
    assert ["payment_required" in said[0], "restricted_writes" in said[1], "20" in said[2]] == [True] * 3
    assert len(said) == 3


async def test_stock_is_taken_in_answers_that_are_not_cut(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(cap=10)
    events = [note(str(i)) for i in range(25)]
    async with informed(document(max_limit=10), a=relay) as relays:
        await wait_all_tasks_blocked()
        for event in events:
            await relays.publish(event)
        relay.events = events[:-1]
        await trio.sleep(3_700)
        assert relays.counts["lost by the relay"] == 1
        assert relay.published()[25:] == [events[-1].id]


def test_members_of_another_type_or_sign_are_left_out() -> None:
    says = document(
        max_limit="500", max_subscriptions=-1, max_message_length=0, max_event_tags=True, auth_required="yes", max_content_length=9
    )
    assert parse_information_untrusted(says) == Limits(max_content_length=9)


def test_absurdly_small_limits_leave_room_for_paging() -> None:
    limits = Limits(max_limit=1, max_subscriptions=1, max_message_length=1)
    assert limits.narrowed(Filter(limit=500)).limit == 20
    assert limits.subscriptions == 2
    assert limits.ids(100) == 1


@given(st.binary(max_size=200) | st.builds(lambda value: json.dumps(value).encode(), st.dictionaries(st.text(), st.integers() | st.text())))
def test_documents_of_strangers(data: bytes) -> None:
    try:
        parse_information_untrusted(data)
    except RemoteProtocolError:
        pass


class Body(httpx.AsyncByteStream):
    def __init__(self, text: str) -> None:
        self._text = text

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._text.encode()


async def fetched(handler: Callable[[httpx.Request], httpx.Response], url: str = "wss://relay.example/path") -> bytes:
    async with httpx.AsyncClient(transport=httpx.MockTransport(handler)) as client:
        return await http_information(client)(url)


async def test_the_document_is_asked_for_at_the_relays_own_address() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept"] == "application/nostr+json"
        return httpx.Response(200, stream=Body(str(request.url)))

    assert await fetched(handler) == b"https://relay.example/path"
    assert await fetched(handler, "ws://relay.example:81") == b"http://relay.example:81"


async def test_an_endless_document_is_cut_and_then_refused() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            await trio.lowlevel.checkpoint()
            yield b" " * 1_024

    data = await fetched(lambda request: httpx.Response(200, content=endless()))
    with pytest.raises(RemoteProtocolError, match="at most"):
        parse_information_untrusted(data)


@pytest.mark.parametrize("status", [301, 404, 500])
async def test_whatever_is_no_document_is_unavailable(status: int) -> None:
    with pytest.raises(Unavailable, match=f"status {status}"):
        await fetched(lambda request: httpx.Response(status, headers={"Location": "https://elsewhere.example"}))


async def test_a_refused_connection_is_unavailable() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unavailable, match="refused"):
        await fetched(handler)


@pytest.mark.parametrize("url", ["ws://xn--a.example", "wss://xn--.example"])
async def test_a_name_that_cannot_be_a_name_is_unavailable(url: str) -> None:
    """The WebSocket's side dials it as it is written, and the DNS may know it; what httpx raises then must not end the daemon."""
    with pytest.raises(Unavailable):
        await fetched(lambda request: httpx.Response(200), url)


async def test_a_document_that_does_not_come_is_given_up(autojump_clock: MockClock) -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(Unavailable, match="nothing within 10 s"):
        await fetched(handler)


async def test_a_host_that_no_name_server_could_know_is_unavailable() -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(Unavailable, match="idna"):
            await http_information(client)(f"ws://{'a' * 64}.example")
