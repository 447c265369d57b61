"""Subscriptions of the pool against scripted relays, in virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.errors import LocalProtocolError
from nostrain.nostr.pool import RelayPool
from nostrain.nostr.watch import Settings
from nostrain.protocol.event import Filter
from tests.nostr.pools import WANTED, as_object, pool, take
from tests.nostr.scripted_relay import ALICE, ScriptedRelay, Wire, note


async def test_history_is_paged_and_everything_arrives_once(autojump_clock: MockClock) -> None:
    stored = [note(str(i), created_at=1_000 + i // 2) for i in range(20)]
    relay = ScriptedRelay(*stored, cap=3)
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert sorted(await take(events, 20), key=int) == [str(i) for i in range(20)]
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            events.receive_nowait()
        relay.broadcast(note("live", created_at=2_000))
        assert await take(events, 1) == ["live"]
        assert list(relay.wire.subscriptions) == ["1.0"]


async def test_two_filters_and_two_relays_collapse_duplicates(autojump_clock: MockClock) -> None:
    shared, only_b = note("shared"), note("b", kind=8651)
    a, b = ScriptedRelay(shared), ScriptedRelay(shared, only_b)
    async with pool(a=a, b=b) as relays, relays.subscribe([WANTED, Filter(authors=(ALICE.pubkey,))]) as events:
        assert sorted(await take(events, 2)) == ["b", "shared"]
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            events.receive_nowait()
        assert relays.counts["duplicate"] > 0
        assert not relays.counts["bad event"]


async def test_reconnection_asks_from_the_cursor(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("old", created_at=5_000))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["old"]
        await wait_all_tasks_blocked()
        assert "since" not in relay.requests()[0][2]
        relay.wire.drop()
        relay.events.append(note("missed", created_at=5_010))
        relay.heard.clear()
        assert await take(events, 1) == ["missed"]
        assert relay.requests()[0][2]["since"] == 5_000 - 600
        assert relay.dials == 2


async def test_a_connection_lost_in_mid_history_is_followed_by_a_full_query(autojump_clock: MockClock) -> None:
    class Breaks(ScriptedRelay):
        def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
            if self.dials > 1:
                return super().on_req(wire, name, wanted)
            wire.say("EVENT", name, as_object(self.events[1]))
            return wire.drop()

    relay = Breaks(note("oldest", created_at=1_000), note("newest", created_at=90_000))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 2) == ["newest", "oldest"]


async def test_relay_down_for_long_is_dialled_for_ever_with_growing_pauses(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("x"))
    relay.down = True
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        await trio.sleep(3_600)
        assert 3_600 / 60 < relay.dials < 3_600 / 30 + 10
        assert relays.connected == ()
        relay.down = False
        assert await take(events, 1) == ["x"]
        assert relays.connected == ("ws://a",)


async def test_bad_events_are_counted_named_and_dropped_without_ending_the_connection(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    genuine = note("genuine")
    relay = ScriptedRelay()
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        await wait_all_tasks_blocked()
        relay.wire.say("EVENT", "1.0", as_object(genuine) | {"content": "forged"})
        relay.wire.say("EVENT", "1.0", as_object(genuine) | {"sig": "00" * 64})
        relay.wire.say("EVENT", "1.0", {"id": 5})
        relay.wire.say("EVENT", "1.0", as_object(note(kind=1)))
        relay.wire.say("EVENT", "9.9", as_object(genuine))
        relay.wire.say("WHAT")
        relay.wire.say_raw("}")
        relay.wire.say("NOTICE", "hello")
        relay.wire.say("EOSE", "9.9")
        relay.wire.say("EVENT", "1.0", as_object(genuine))
        assert await take(events, 1) == ["genuine"]
        counted = {name: relays.counts[name] for name in ("bad event", "unwanted event", "unsubscribed", "bad message", "notice")}
        assert counted == {"bad event": 3, "unwanted event": 1, "unsubscribed": 1, "bad message": 2, "notice": 1}
        assert relay.dials == 1
    lines = [record.getMessage() for record in caplog.records if "bad event" in record.getMessage()]
    assert "relay ws://a" in lines[0]
    assert ALICE.pubkey in lines[0]


async def test_log_does_not_grow_with_every_misdeed(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    relay = ScriptedRelay()
    async with pool(a=relay) as relays:
        await wait_all_tasks_blocked()
        for _ in range(5_000):
            relay.wire.say("NOTICE", "spam")
        await wait_all_tasks_blocked()
        assert relays.counts["notice"] == 5_000
    assert sum("spam" in record.getMessage() for record in caplog.records) < 40


async def test_slow_reader_gets_everything_and_does_not_stall_publishing(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(*(note(str(i), created_at=1_000 + i) for i in range(30)), cap=5)
    settings = Settings(queue_size=10, page_size=5)
    async with pool(settings=settings, a=relay) as relays, relays.subscribe([WANTED]) as events:
        await wait_all_tasks_blocked()
        for i in range(30, 60):
            relay.broadcast(note(str(i), created_at=1_000 + i))
        await relays.publish(note("while the queue is full"))
        got = []
        for _ in range(60):
            got += await take(events, 1)
            await trio.sleep(1)
        assert sorted(got, key=int) == [str(i) for i in range(60)]
        assert relays.counts["queue full"] > 0
        assert relay.dials == 1


async def test_a_relay_may_close_what_was_asked_for_by_id_once_it_has_shown_it(autojump_clock: MockClock) -> None:
    class Closes(ScriptedRelay):
        def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
            super().on_req(wire, name, wanted)
            wire.say("CLOSED", name, "")

    relay = Closes(found := note("x"))
    async with pool(a=relay) as relays, relays.subscribe([Filter(ids=(found.id,))]) as events:
        assert await take(events, 1) == ["x"]
        await trio.sleep(10)
        asked = len(relay.requests())
        await trio.sleep(3_000)
        assert relays.counts["subscription closed"] == 0
        assert len(relay.requests()) == asked
        await trio.sleep(1_000)
        assert len(relay.requests()) > asked


async def test_leaving_a_subscription_closes_it_on_the_relay(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool(a=relay) as relays:
        async with relays.subscribe([WANTED, WANTED]) as events:
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert relay.wire.subscriptions == {}
        with pytest.raises(trio.ClosedResourceError):
            events.receive_nowait()
        with pytest.raises(LocalProtocolError):
            await relays.subscribe([]).__aenter__()


async def test_reader_finds_the_end_when_the_pool_closes(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("x"))
    got: list[str] = []

    async def read(relays: RelayPool) -> None:
        async with relays.subscribe([WANTED]) as events:
            got.extend([event.content async for event in events])
        got.append("the end")

    async with trio.open_nursery() as nursery, pool(a=relay) as relays:
        nursery.start_soon(read, relays)
        await wait_all_tasks_blocked()
    assert got == ["x", "the end"]


async def test_reader_may_close_its_end_early(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events, relays.subscribe([WANTED]) as early:
        await early.aclose()
        await wait_all_tasks_blocked()
        relay.broadcast(note("x"))
        assert await take(events, 1) == ["x"]


async def test_closed_subscription_is_reopened_if_the_reason_allows(autojump_clock: MockClock) -> None:
    class Closes(ScriptedRelay):
        refusals = ["error: shutting down", "rate-limited: later"]

        def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
            if self.refusals:
                wire.say("CLOSED", name, self.refusals.pop(0))
                wire.say("CLOSED", "unknown", "error: whose?")
            else:
                super().on_req(wire, name, wanted)

    relay = Closes(note("x"))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["x"]
        assert relays.counts["subscription closed"] == 2
        relay.wire.say("CLOSED", "1.0#3", "blocked: go away")
        await wait_all_tasks_blocked()
        requests = len(relay.requests())
        await trio.sleep(300)
        assert len(relay.requests()) == requests
