"""Relays that lag, forget, lie and lose things, and a computer that sleeps: the pool against scripted relays, in virtual time."""

from __future__ import annotations

import random
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.nostr.watch import Settings
from nostrain.protocol.event import Filter
from nostrain.units import UnixTime
from tests.nostr.scripted_relay import ALICE, PlainSigner, ScriptedRelay, Stocked, Wire, dial, note
from tests.nostr.test_pool import WANTED, as_object, take

START = 100_000


class WallClock:
    """Runs with trio's clock, unless it is set."""

    def __init__(self) -> None:
        self.offset = 0

    def now(self) -> UnixTime:
        return UnixTime(START + self.offset + int(trio.current_time()))


def pool(
    signer: PlainSigner | None = None,
    settings: Settings | None = None,
    clock: WallClock | None = None,
    archive: Path | None = None,
    **relays: ScriptedRelay,
) -> AbstractAsyncContextManager[RelayPool]:
    urls = [f"ws://{name}" for name in relays]
    now = (clock or WallClock()).now
    return open_pool(urls, signer=signer, settings=settings, rng=random.Random(7), now=now, connect=dial(**relays), archive=archive)


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


# Publishing


async def test_a_relay_that_was_away_gets_the_event_when_it_is_back(autojump_clock: MockClock) -> None:
    a, b, away = ScriptedRelay(), ScriptedRelay(), Stocked()
    away.down = True
    away.made = events = [note(str(i)) for i in range(3)]
    async with pool(a=a, b=b, away=away) as relays:
        for event in events:
            await relays.publish(event)
        away.down, away.verdicts = False, [(False, "rate-limited: slow"), None]
        await trio.sleep(300)
        assert away.published()[-2:] == [events[1].id, events[2].id]
        assert relays.counts["delivered late"] == 3
        assert a.published() == [event.id for event in events]


async def test_a_restart_does_not_forget_what_a_relay_misses(autojump_clock: MockClock, tmp_path: Path) -> None:
    a, away, event = ScriptedRelay(), ScriptedRelay(), note("x")
    away.down = True
    async with pool(a=a, away=away, archive=tmp_path / "published.sqlite") as relays:
        await relays.publish(event)
    away.down = False
    async with pool(a=a, away=away, archive=tmp_path / "published.sqlite"):
        await trio.sleep(60)
    assert away.published() == [event.id]


async def test_one_of_two_relays_is_enough(autojump_clock: MockClock) -> None:
    a, b = ScriptedRelay(), ScriptedRelay()
    a.down = True
    async with pool(a=a, b=b) as relays:
        await relays.publish(note())


async def test_a_refusal_is_not_final_while_others_may_still_take_it(autojump_clock: MockClock) -> None:
    a, b = ScriptedRelay(), ScriptedRelay()
    a.verdicts, b.down = [(False, "blocked: you")], True
    async with pool(a=a, b=b) as relays:
        with pytest.raises(Unavailable, match="blocked: you"):
            await relays.publish(note())


async def test_a_refusal_that_names_no_event_is_that_of_the_only_one_under_way(autojump_clock: MockClock) -> None:
    class Nameless(ScriptedRelay):
        def on_event(self, wire: Wire, event: Any) -> None:
            if event["content"] == "good":
                super().on_event(wire, event)
            else:
                wire.say("OK", "", False, "invalid: because")

    relay = Nameless()
    async with pool(a=relay) as relays:
        with pytest.raises(RemoteProtocolError, match="invalid: because"):
            await relays.publish(note("bad"))
        assert trio.current_time() == 0


async def test_a_refusal_that_names_no_event_says_nothing_about_several(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [None, None]
    events = [note("x"), note("y")]
    async with pool(a=relay) as relays, trio.open_nursery() as nursery:
        for event in events:
            nursery.start_soon(relays.publish, event)
        await wait_all_tasks_blocked()
        relay.wire.say("OK", "", False, "invalid: because")
    assert len(relay.published()) == 4  # both again, once the time for their OK was up
    assert relay.dials == 2


async def test_an_event_from_the_future_is_offered_until_its_time_has_come(autojump_clock: MockClock) -> None:
    class Punctual(ScriptedRelay):
        def on_event(self, wire: Wire, event: Any) -> None:
            late = event["created_at"] <= START - 100 + trio.current_time()
            wire.say("OK", event["id"], late, "" if late else "invalid: created_at is in the future")

    relay = Punctual()
    relay.date = UnixTime(START - 100)
    async with pool(a=relay, settings=Settings(publish_timeout_s=300)) as relays:
        await relays.publish(note("x", created_at=START))
        assert trio.current_time() >= 100
        assert relays.counts["clock differs"] == 1


async def test_we_authenticate_by_the_slower_clock(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.date = UnixTime(START - 500)
    async with pool(signer=ALICE, a=relay):
        await wait_all_tasks_blocked()
        relay.wire.say("AUTH", "chal-lenge")
        await wait_all_tasks_blocked()
    (auth,) = [message[1] for message in relay.heard if message[0] == "AUTH"]
    assert auth["created_at"] == START - 500
