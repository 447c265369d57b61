"""What a relay lost of ours is noticed and sent again: every hour, and when it is connected again."""

from __future__ import annotations

import json
import random
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.protocol.event import Filter
from nostrain.wire.event import encode_event
from tests.nostr.scripted_relay import ScriptedRelay, Stocked, Wire, dial, note


def pool(relay: ScriptedRelay) -> AbstractAsyncContextManager[RelayPool]:
    return open_pool(["ws://a"], rng=random.Random(7), connect=dial(a=relay))


async def test_evidence_that_a_relay_lost_is_sent_again(autojump_clock: MockClock) -> None:
    relay = Stocked()
    relay.made = [note(str(i), created_at=1_000 + i) for i in range(250)]
    async with pool(relay) as relays:
        for event in relay.made:
            await relays.publish(event)
        del relay.events[10:40]
        await trio.sleep(3_700)
        assert {event.id for event in relay.events} == {event.id for event in relay.made}
        assert relays.counts["lost by the relay"] == 30
        assert len(relay.published()) == 280


async def test_a_relay_that_comes_back_with_nothing_is_given_everything_again_at_once(autojump_clock: MockClock) -> None:
    relay = Stocked()
    relay.made = [note(str(i), created_at=1_000 + i) for i in range(250)]
    async with pool(relay) as relays:
        for event in relay.made:
            await relays.publish(event)
        relay.events.clear()
        relay.wire.drop()
        await trio.sleep(60)
        assert {event.id for event in relay.events} == {event.id for event in relay.made}
        assert relays.counts["lost by the relay"] == 250
        relay.wire.drop()
        await trio.sleep(60)
        assert len(relay.published()) == 500


async def test_a_relay_that_forgets_what_it_took_before_there_was_a_quorum_is_given_it_again(autojump_clock: MockClock) -> None:
    relays = {name: Stocked() for name in ("a", "b", "c")}
    event = note()
    for relay in relays.values():
        relay.made = [event]
    relays["b"].down = relays["c"].down = True
    async with (
        open_pool([f"ws://{name}" for name in relays], rng=random.Random(7), connect=dial(**relays)) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(pool.publish, event)
        await trio.sleep(1)
        assert relays["a"].events == [event]
        relays["a"].events.clear()
        relays["a"].wire.drop()
        await trio.sleep(1)
        relays["b"].down = relays["c"].down = False
        await trio.sleep(100)
        assert relays["a"].events == relays["b"].events == relays["c"].events == [event]


async def test_letters_are_given_again_to_a_relay_that_has_forgotten_everything(autojump_clock: MockClock) -> None:
    relay, letter = Stocked(), note("wrapped", kind=1059)
    relay.made = [*(note(str(i), created_at=1_000 + i) for i in range(3)), letter]
    async with pool(relay) as relays:
        for event in relay.made:
            await relays.publish(event)
        relay.events.remove(letter)
        del relay.events[0]
        relay.wire.drop()
        await trio.sleep(700)
        assert letter not in relay.events, "one that lost a part may be hiding it from us"
        relay.events.clear()
        relay.wire.drop()
        await trio.sleep(60)
        assert {event.id for event in relay.events} == {event.id for event in relay.made}


async def test_a_relay_that_has_everything_is_asked_once_when_it_comes_back(autojump_clock: MockClock) -> None:
    relay = Stocked()
    relay.made = [note(str(i), created_at=1_000 + i) for i in range(250)]
    async with pool(relay) as relays:
        for event in relay.made:
            await relays.publish(event)
        for _ in range(3):
            relay.wire.drop()
            await trio.sleep(60)
        assert len(relay.requests()) == 3
        assert len(relay.published()) == 250


@pytest.mark.parametrize("reason", ["", "blocked: no"], ids=["all_was_shown", "nothing_is_shown"])
async def test_a_relay_that_closes_the_query_for_its_stock_is_given_what_it_missed_at_once(reason: str, autojump_clock: MockClock) -> None:
    class Closing(Stocked):
        def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
            for event in self.events:
                if event.id in wanted.ids and not reason:
                    wire.say("EVENT", name, json.loads(encode_event(event)))
            wire.say("CLOSED", name, reason)

    first, second = note("first"), note("second")
    relay, other = Closing(), ScriptedRelay()
    relay.made = [first, second]
    async with open_pool(["ws://a", "ws://b"], rng=random.Random(7), connect=dial(a=relay, b=other)) as relays:
        await relays.publish(first)
        await trio.sleep(1)
        relay.down = True
        relay.wire.drop()
        await relays.publish(second)
        relay.down = False
        await trio.sleep(5)
        assert relay.events == [first, second]


async def test_an_advert_that_a_relay_has_a_newer_one_of_holds_up_nothing(autojump_clock: MockClock) -> None:
    class Newest(ScriptedRelay):
        def on_event(self, wire: Wire, event: Any) -> None:
            if event["content"] == "old":
                wire.say("OK", event["id"], False, "error: unknown")
            else:
                super().on_event(wire, event)

    away, other, statement = Newest(), ScriptedRelay(), note("statement")
    away.down = True
    async with open_pool(["ws://a", "ws://b"], rng=random.Random(7), connect=dial(a=away, b=other)) as relays:
        await relays.publish(note("old", kind=38650))
        await relays.publish(statement)
        away.down = False
        await trio.sleep(60)
        assert statement.id in away.published()


async def test_a_relay_that_keeps_nothing_of_ours_is_not_flooded_whenever_it_comes_back(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool(relay) as relays:
        await relays.publish(note())
        for _ in range(10):
            relay.wire.drop()
            await trio.sleep(30)
        assert len(relay.published()) == 2


async def test_a_relay_that_does_not_say_what_it_has_is_asked_again_later(autojump_clock: MockClock) -> None:
    class Shy(ScriptedRelay):
        def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
            wire.say("CLOSED", name, "blocked: no")

    relay = Shy()
    async with pool(relay) as relays:
        await relays.publish(note())
        await trio.sleep(8_000)
        assert len(relay.requests()) == 2
        assert relay.dials == 1
        assert len(relay.published()) == 1
