"""Relays that lag, forget, lie and fall silent, and a computer that sleeps: what the pool reads through scripted relays, in virtual time."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.protocol.event import Filter
from tests.nostr.pools import START, WANTED, WallClock, as_object, pool, take
from tests.nostr.scripted_relay import ScriptedRelay, Wire, note


class Mute(ScriptedRelay):
    """Answers pings, and no query while `mute`."""

    mute = True

    def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
        if not self.mute:
            super().on_req(wire, name, wanted)


# Liveness
async def test_a_relay_that_answers_pings_but_no_queries_is_left_with_growing_patience(autojump_clock: MockClock) -> None:
    relay = Mute(note("x"))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        await trio.sleep(300)
        assert relay.dials == 4  # after 30, 60, 120 s and the pauses between
        assert relays.counts["no answer"] == 3
        relay.mute = False
        assert await take(events, 1) == ["x"]


async def test_a_slow_answer_is_not_a_missing_one(autojump_clock: MockClock) -> None:
    relay = Mute()
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        await wait_all_tasks_blocked()
        for i in range(10):
            await trio.sleep(20)
            relay.wire.say("EVENT", "1.0", as_object(note(str(i))))
        assert await take(events, 10) == [str(i) for i in range(10)]
        assert relay.dials == 1


async def test_a_query_without_an_answer_leaves_the_cursor_alone(autojump_clock: MockClock) -> None:
    relay = Mute(note("old", created_at=1_000))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        await wait_all_tasks_blocked()
        relay.wire.say("EVENT", "1.0", as_object(note("new", created_at=90_000)))
        relay.mute = False
        assert await take(events, 2) == ["new", "old"]


async def test_a_known_event_with_another_date_does_not_move_the_cursor(autojump_clock: MockClock) -> None:
    relay, known = ScriptedRelay(note("known", created_at=5_000)), note("known", created_at=5_000)
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["known"]
        await wait_all_tasks_blocked()
        relay.wire.say("EVENT", "1.0", as_object(known) | {"created_at": START})
        await wait_all_tasks_blocked()
        assert relays.counts["duplicate"] > 0
        relay.wire.drop()
        relay.events.append(note("missed", created_at=6_000))
        assert await take(events, 1) == ["missed"]


async def test_a_silent_relay_is_asked_for_a_sign_of_life(autojump_clock: MockClock) -> None:
    relay = Mute(note("x"))
    relay.mute = False
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["x"]
        await wait_all_tasks_blocked()
        relay.heard.clear()
        await trio.sleep(66)
        assert relay.heard == [["REQ", "1.0:probe", {"kinds": [8650], "limit": 1}], ["CLOSE", "1.0:probe"]]
        relay.mute = True
        await trio.sleep(105)
        assert relays.counts["no answer"] == 1


async def test_a_subscription_that_the_relay_forgot_is_noticed(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("first", created_at=START))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["first"]
        await wait_all_tasks_blocked()
        relay.wire.subscriptions.clear()
        for i in range(2):
            relay.broadcast(note(f"missed {i}", created_at=START + i))
        assert sorted(await take(events, 2)) == ["missed 0", "missed 1"]
        assert relays.counts["missed"] == 1
        assert relay.dials == 1


async def test_what_is_published_long_after_its_date_is_found_within_the_hour(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(note("now", created_at=START))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["now"]
        await wait_all_tasks_blocked()
        relay.wire.drop()
        relay.events.append(note("ten hours late", created_at=START - 36_000))
        with trio.fail_after(3_700):
            assert (await events.receive()).content == "ten hours late"
        assert trio.current_time() > 3_000


async def test_a_computer_that_slept_dials_again_at_once(autojump_clock: MockClock) -> None:
    relay, clock = ScriptedRelay(), WallClock()
    async with pool(a=relay, clock=clock) as relays, relays.subscribe([WANTED]) as events:
        await trio.sleep(7)
        clock.offset = 3_600
        relay.events.append(note("while we slept"))
        with trio.fail_after(5):
            assert (await events.receive()).content == "while we slept"
        assert relay.dials == 2


async def test_a_final_refusal_of_a_subscription_is_tried_again_after_an_hour(autojump_clock: MockClock) -> None:
    class Moody(ScriptedRelay):
        def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
            if trio.current_time() < 3_000:
                wire.say("CLOSED", name, "blocked: too many")
            else:
                super().on_req(wire, name, wanted)

    relay = Moody(note("x"))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        with trio.fail_after(3_700):
            assert (await events.receive()).content == "x"
        assert trio.current_time() > 3_000
        await trio.sleep(70)
        assert "1.0:probe" in [request[1] for request in relay.requests()]
        assert relay.dials == 1


# Standing
async def test_a_relay_that_forges_is_benched_while_another_serves(autojump_clock: MockClock) -> None:
    liar, honest = ScriptedRelay(), ScriptedRelay(note("genuine"))
    async with pool(liar=liar, honest=honest) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["genuine"]
        for i in range(150):
            liar.wire.say("EVENT", "1.0", as_object(note("forged")) | {"content": str(i)})
        await trio.sleep(500)
        assert (liar.dials, relays.connected) == (1, ("ws://honest",))
        assert relays.counts["benched"] == 1
        await trio.sleep(200)
        assert relays.connected == ("ws://liar", "ws://honest")


async def test_the_only_relay_is_never_benched_and_one_on_the_bench_is_fetched(autojump_clock: MockClock) -> None:
    liar, honest = ScriptedRelay(), ScriptedRelay()

    def forge() -> None:
        for i in range(150):
            liar.wire.say("EVENT", "1.0", as_object(note("forged")) | {"content": str(i)})

    async with pool(liar=liar, honest=honest) as relays, relays.subscribe([WANTED]):
        await wait_all_tasks_blocked()
        forge()
        await trio.sleep(20)
        assert relays.connected == ("ws://honest",)
        honest.down = True
        honest.wire.drop()
        await trio.sleep(20)
        assert relays.connected == ("ws://liar",)
        forge()
        await trio.sleep(20)
        assert liar.dials == 2


async def test_strangers_cannot_have_an_honest_relay_benched(autojump_clock: MockClock) -> None:
    a, b = ScriptedRelay(), ScriptedRelay()
    async with pool(a=a, b=b) as relays, relays.subscribe([WANTED]):
        await wait_all_tasks_blocked()
        for i in range(300):
            a.wire.say("EVENT", "1.0", as_object(note()) | {"content": f"a control character \x01 {i}"})
        await wait_all_tasks_blocked()
        assert relays.counts["bad event"] == 300
        assert not relays.counts["benched"]
