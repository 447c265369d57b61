"""What relays of other make do that NIP-01 does not say, as met with khatru: the pool against scripted relays, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.errors import RemoteProtocolError
from nostrain.nostr.watch import Settings
from nostrain.protocol.event import Event, Filter
from nostrain.units import EventId
from tests.nostr.scripted_relay import ScriptedRelay, Wire, note
from tests.nostr.test_hostile_relays import pool
from tests.nostr.test_pool import WANTED, as_object, take

HOUR_S = 3_600
PATIENT = Settings(publish_timeout_s=1_000)


class KeepsBoth(ScriptedRelay):
    """A `REQ` of an id that is open already is one more subscription."""

    def __init__(self, *events: Event) -> None:
        super().__init__(*events)
        self.kept: list[tuple[str, Filter]] = []

    def on_message(self, wire: Wire, message: Any) -> None:
        super().on_message(wire, message)
        if message[0] == "CLOSE":
            self.kept = [(name, wanted) for name, wanted in self.kept if name != message[1]]

    def on_req(self, wire: Wire, name: str, wanted: Filter) -> None:
        super().on_req(wire, name, wanted)
        self.kept.append((name, wanted))


class OneByOne(ScriptedRelay):
    """Takes its time with every event; `never` is one that it does not answer at all."""

    def __init__(self, never: EventId | None = None) -> None:
        super().__init__()
        self.never = never
        self._waiting, self._taken = trio.open_memory_channel[tuple[Wire, EventId]](1_000)

    def on_event(self, wire: Wire, event: Any) -> None:
        if event["id"] != self.never:
            self._waiting.send_nowait((wire, EventId(event["id"])))

    async def serve(self, pause_s: float) -> None:
        async for wire, event_id in self._taken:
            if wire is self.wire:
                await trio.sleep(pause_s)
                wire.say("OK", event_id, True, "")


async def test_a_relay_that_keeps_every_query_sends_nothing_twice(autojump_clock: MockClock) -> None:
    relay = KeepsBoth(note("old"))
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["old"]
        await trio.sleep(2 * HOUR_S + 10)
        requests = [request[1] for request in relay.requests()]
        assert len(requests) > 2
        assert len(set(requests)) == len(requests)
        assert [name for name, _ in relay.kept] == [[name for name in requests if ":" not in name][-1]]


async def test_what_was_on_its_way_to_an_earlier_query_is_taken(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool(a=relay) as relays, relays.subscribe([WANTED]) as events:
        await trio.sleep(HOUR_S + 10)
        assert "1.0" not in relay.wire.subscriptions
        relay.wire.say("EVENT", "1.0", as_object(note("late")))
        assert await take(events, 1) == ["late"]


async def test_the_end_of_an_earlier_answer_is_none_of_the_latest(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool(a=relay) as relays, relays.subscribe([WANTED]):
        await trio.sleep(HOUR_S - 10)
        relay.silent = True
        await trio.sleep(20)
        relay.wire.say("EOSE", "1.0")
        relay.wire.say("CLOSED", "1.0", "blocked: not here")
        await trio.sleep(60)
        assert relays.counts["no answer"] >= 1
        assert not relays.counts["subscription closed"]


async def test_nobody_has_to_listen_for_an_ephemeral_event(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [(False, "mute: no one was listening for this")] * 2
    async with pool(a=relay) as relays:
        await relays.publish(note(kind=28650))
        with pytest.raises(RemoteProtocolError, match="mute"):
            await relays.publish(note())


async def test_a_relay_that_takes_a_burst_slowly_is_not_left(autojump_clock: MockClock) -> None:
    relay = OneByOne()
    async with pool(settings=PATIENT, a=relay) as relays, trio.open_nursery() as nursery:
        nursery.start_soon(relay.serve, 3.0)
        async with trio.open_nursery() as burst:
            for i in range(15):
                burst.start_soon(relays.publish, note(str(i)))
        assert len(relay.published()) == 15
        assert relay.dials == 1
        nursery.cancel_scope.cancel()


async def test_an_event_that_is_passed_over_again_and_again_is_sent_anew(autojump_clock: MockClock) -> None:
    unlucky = note("unlucky")
    relay = OneByOne(never=unlucky.id)
    async with pool(settings=PATIENT, a=relay) as relays, trio.open_nursery() as nursery:
        nursery.start_soon(relay.serve, 5.0)
        nursery.start_soon(relays.publish, unlucky)
        await wait_all_tasks_blocked()
        relay.never = None
        for i in range(15):
            nursery.start_soon(relays.publish, note(str(i)))
        await trio.sleep(200)
        assert relay.dials == 2
        assert relay.published().count(unlucky.id) == 2
        nursery.cancel_scope.cancel()
