"""What the pool makes of relays' answers to an event: quorum, refusals, duplicates, and asking again."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr.watch import Settings
from tests.nostr.pools import pool
from tests.nostr.scripted_relay import ScriptedRelay, note


async def test_quorum_is_enough_and_a_dead_relay_blocks_nobody(autojump_clock: MockClock) -> None:
    a, b, dead = ScriptedRelay(), ScriptedRelay(), ScriptedRelay()
    dead.silent = True
    event = note("x")
    async with pool(a=a, b=b, dead=dead) as relays:
        started = trio.current_time()
        await relays.publish(event)
        assert trio.current_time() == started
        assert a.published() == b.published() == [event.id]


@pytest.mark.parametrize(("quorum", "needed"), [(None, 2), (1, 1), (2, 2), (99, 3)])
async def test_quorum_is_configured_up_to_the_number_of_relays(autojump_clock: MockClock, quorum: int | None, needed: int) -> None:
    parts = {name: ScriptedRelay() for name in "abc"}
    for part in list(parts.values())[needed:]:
        part.down = True
    async with pool(settings=Settings(quorum=quorum), **parts) as relays:
        await relays.publish(note())
        parts["a"].down = True
        parts["a"].wire.drop()
        with pytest.raises(Unavailable, match=f"{needed - 1} of {needed} relays"):
            await relays.publish(note())


async def test_unreachable_relays_are_unavailable_in_time(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.down = True
    async with pool(a=relay) as relays:
        started = trio.current_time()
        with pytest.raises(Unavailable, match="0 of 1 relays"):
            await relays.publish(note())
        assert trio.current_time() - started == 30


@pytest.mark.parametrize("reason", ["invalid: bad", "blocked: you", "pow: 20", "restricted: members", "because"])
async def test_final_refusal_by_every_relay(autojump_clock: MockClock, reason: str) -> None:
    a, b = ScriptedRelay(), ScriptedRelay()
    a.verdicts = b.verdicts = [(False, reason), (False, reason)]
    async with pool(a=a, b=b) as relays:
        started = trio.current_time()
        with pytest.raises(RemoteProtocolError, match=f"refused: ws://a: {reason}|refused: ws://b: {reason}"):
            await relays.publish(note())
        assert trio.current_time() == started


async def test_refusals_are_final_when_no_quorum_is_left(autojump_clock: MockClock) -> None:
    a, b, c = ScriptedRelay(), ScriptedRelay(), ScriptedRelay()
    a.verdicts, c.down = [(False, "blocked: x")], True
    async with pool(a=a, b=b, c=c) as relays:
        with pytest.raises(Unavailable, match="1 of 2 relays took it; refused: ws://a: blocked: x"):
            await relays.publish(note())
        a.verdicts = b.verdicts = [(False, "blocked: x"), (False, "blocked: x")]
        with pytest.raises(RemoteProtocolError):
            await relays.publish(note())


async def test_duplicate_is_success(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [(False, "duplicate: have it")]
    async with pool(a=relay) as relays:
        await relays.publish(note())
        assert len(relay.published()) == 1


async def test_rate_limit_and_error_are_retried_with_a_pause(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [(False, "rate-limited: slow"), (False, "error: disk"), (True, "")]
    event = note()
    async with pool(a=relay) as relays:
        started = trio.current_time()
        await relays.publish(event)
        assert relay.published() == [event.id] * 3
        assert trio.current_time() - started >= 0.25 + 0.5


async def test_no_ok_means_reconnect_and_send_again(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [None, (True, "")]
    event = note()
    async with pool(a=relay) as relays:
        await relays.publish(event)
        assert relay.dials == 2
        assert relay.published() == [event.id] * 2


async def test_publishing_the_same_event_twice_at_once(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    relay.verdicts = [None, (True, "")]
    async with pool(a=relay) as relays, trio.open_nursery() as nursery:
        nursery.start_soon(relays.publish, note())
        nursery.start_soon(relays.publish, note())
    assert relay.dials == 1


async def test_a_connection_that_is_lost_while_something_is_about_to_be_sent_harms_nobody(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool(a=relay) as relays, trio.open_nursery() as nursery:
        await wait_all_tasks_blocked()
        relay.wire.drop()
        for n in range(30):  # one of them begins in the very step of trio in which the connection is given up
            nursery.start_soon(relays.publish, note(str(n)))
            await trio.lowlevel.checkpoint()
    assert relay.dials == 2
    assert len(set(relay.published())) == 30
