"""The fake relays' faults, in virtual time: nothing is lost for ever, and a seed repeats exactly."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.ports.relays import Relays
from nostrain.protocol.event import Draft, Event, Filter
from nostrain.testing.relays import FakeRelayNetwork, Faults
from nostrain.units import UnixTime
from tests.nostr.scripted_relay import ALICE, note

WANTED = Filter(kinds=(8650,))
EVENTS = [note(str(i), created_at=1_000 + i) for i in range(100)]


async def run(seed: int, faults: Faults, until: float = 300) -> list[tuple[float, str]]:
    """What bob receives, and when, while alice publishes EVENTS one a second."""
    received: list[tuple[float, str]] = []
    network = FakeRelayNetwork(seed, faults)
    start = trio.current_time()

    async def read(events: trio.MemoryReceiveChannel[Event]) -> None:
        async for event in events:
            received.append((trio.current_time() - start, event.content))

    async with (
        trio.open_nursery() as nursery,
        network.open("alice") as alice,
        network.open("bob") as bob,
        bob.subscribe([WANTED]) as events,
    ):
        nursery.start_soon(read, events)
        for event in EVENTS:
            await alice.publish(event)
            await trio.sleep(1)
        await trio.sleep(until)
    return received


async def test_without_faults_delivery_is_immediate_and_once(autojump_clock: MockClock) -> None:
    assert await run(1, Faults()) == [(i, str(i)) for i in range(100)]


async def test_lost_events_come_with_the_next_query(autojump_clock: MockClock) -> None:
    received = await run(1, Faults(loss=0.5, requery_s=30))
    assert sorted(int(content) for _, content in received) == list(range(100))
    late = [when for when, content in received if when > int(content)]
    assert 20 < len(late) < 80
    assert all(when % 30 == pytest.approx(0) for when in late)


async def test_duplication_and_delay(autojump_clock: MockClock) -> None:
    received = await run(1, Faults(duplication=0.5, delay_s=(0.0, 20.0)))
    order = [int(content) for _, content in received]
    assert set(order) == set(range(100))
    assert 120 < len(order) < 180
    assert order != sorted(order)


def test_a_seed_repeats_and_another_differs() -> None:
    faults = Faults(loss=0.2, duplication=0.2, delay_s=(0.1, 5.0))
    first, again, other = (trio.run(run, seed, faults, clock=MockClock(autojump_threshold=0)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


async def test_unavailable_publication_may_have_happened(autojump_clock: MockClock) -> None:
    network = FakeRelayNetwork(1, Faults(unavailable=0.5))
    failed = []
    async with network.open("alice") as alice:
        for event in EVENTS:
            try:
                await alice.publish(event)
            except Unavailable:
                failed.append(event.id in network.events)
    assert 30 < len(failed) < 70
    assert 5 < sum(failed) < len(failed) - 5


def versioned(kind: int, created_at: int, d: str) -> Event:
    return ALICE.sign(Draft(UnixTime(created_at), kind, (("d", d),), str(created_at)))


async def test_pointers_are_replaced_and_presence_is_not_stored(autojump_clock: MockClock) -> None:
    network = FakeRelayNetwork()
    async with network.open("alice") as alice, alice.subscribe([Filter(kinds=(28650,))]) as presence:
        for event in (versioned(38650, 5, "a"), versioned(38650, 7, "a"), versioned(38650, 6, "a"), versioned(38650, 1, "b")):
            await alice.publish(event)
        for event in (versioned(10002, 2, ""), versioned(10002, 3, "x"), versioned(8650, 1, "a"), versioned(8650, 2, "a")):
            await alice.publish(event)
        await alice.publish(versioned(28650, 1, ""))
        assert (await presence.receive()).kind == 28650
    assert [(event.kind, event.content) for event in network.events.values()] == [
        (38650, "7"),
        (38650, "1"),
        (10002, "3"),
        (8650, "1"),
        (8650, "2"),
    ]


async def test_limit_selects_the_newest(autojump_clock: MockClock) -> None:
    network = FakeRelayNetwork()
    async with network.open("alice") as alice:
        for event in EVENTS[:5]:
            await alice.publish(event)
        async with alice.subscribe([Filter(kinds=(8650,), limit=2)]) as events:
            assert [(await events.receive()).content for _ in range(2)] == ["4", "3"]


async def test_a_participant_opens_once_and_may_come_back(autojump_clock: MockClock) -> None:
    network = FakeRelayNetwork()
    async with network.open("alice") as alice:
        with pytest.RaisesGroup(LocalProtocolError, allow_unwrapped=True):
            async with network.open("alice"):
                pass
        await alice.publish(EVENTS[0])
        with pytest.raises(LocalProtocolError):
            async with alice.subscribe([]):
                pass
    async with network.open("alice") as alice, alice.subscribe([WANTED]) as events:
        assert (await events.receive()).content == "0"


async def test_subscriptions_end_with_the_participant(autojump_clock: MockClock) -> None:
    network = FakeRelayNetwork()
    got = []

    async def read(relays: Relays) -> None:
        async with relays.subscribe([WANTED]) as events:
            got.extend([event.content async for event in events])
        got.append("the end")

    async with trio.open_nursery() as nursery, network.open("alice") as alice:
        nursery.start_soon(read, alice)
        await trio.testing.wait_all_tasks_blocked()
        await alice.publish(EVENTS[0])
    assert got == ["0", "the end"]
