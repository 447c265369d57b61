"""Relays that are away, refuse, or live in another time: what becomes of what we publish, in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr.watch import Settings
from nostrain.units import UnixTime
from tests.nostr.pools import START, pool
from tests.nostr.scripted_relay import ALICE, ScriptedRelay, Stocked, Wire, note


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


@pytest.mark.parametrize("answer", [(False, "error: cannot store that"), None], ids=["error", "silence"])
async def test_what_a_relay_has_an_error_with_holds_up_nothing_and_is_offered_again(
    autojump_clock: MockClock, answer: tuple[bool, str] | None
) -> None:
    class Choosy(Stocked):
        """Answers so to the first event that it is owed, for half an hour."""

        def on_event(self, wire: Wire, event: Any) -> None:
            if event["id"] != events[0].id or trio.current_time() > 1_800:
                super().on_event(wire, event)
            elif answer is not None:
                wire.say("OK", event["id"], *answer)

    a, choosy = Stocked(), Choosy()
    choosy.down = True
    a.made = choosy.made = events = [note(str(i)) for i in range(9)]
    async with pool(a=a, choosy=choosy) as relays:
        for event in events:
            await relays.publish(event)
        choosy.down = False
        await trio.sleep(300)
        assert relays.counts["delivered late"] == 8
        assert set(choosy.published()) == {event.id for event in events}
        before = len(choosy.published())
        await trio.sleep(1_200)
        assert 1_200 / 90 < len(choosy.published()) - before < 1_200 / 10, "offered again, with pauses"
        await trio.sleep(900)
        assert relays.counts["delivered late"] == 9


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
