"""One suite for `ports.relays.Relays`: on the fake, and on the real pool against nostr-sdk's relay in a process of its own."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr.pool import open_pool
from nostrain.nostr.watch import Settings
from nostrain.ports.relays import Relays
from nostrain.protocol.event import Event, Filter
from nostrain.testing.relays import FakeRelayNetwork
from nostrain.units import UnixTime
from tests.contracts.relay_process import PATIENCE_S, Author, RelayProcess


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    process = RelayProcess(tmp_path_factory.mktemp("relay"))
    yield process
    assert process.stop() == 0


class World:
    """Where participants meet; each gets relays of its own."""

    def __init__(self, url: str | None) -> None:
        self._url, self._network, self._count = url, FakeRelayNetwork(), 0

    def join(self) -> AbstractAsyncContextManager[Relays]:
        self._count += 1
        if self._url is None:
            return self._network.open(f"participant {self._count}")
        return open_pool([self._url])


@pytest.fixture(params=["fake", "pool"])
def world(request: pytest.FixtureRequest) -> World:
    return World(None if request.param == "fake" else request.getfixturevalue("relay").url)


@pytest.fixture
def author(request: pytest.FixtureRequest) -> Author:
    return Author(request.node.nodeid)


@asynccontextmanager
async def listening(relays: Relays, *filters: Filter) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
    """A subscription, with a limit to the test's patience."""
    with trio.fail_after(PATIENCE_S):
        async with relays.subscribe(filters) as events:
            yield events


async def contents(events: trio.MemoryReceiveChannel[Event], count: int) -> list[str]:
    return sorted([(await events.receive()).content for _ in range(count)])


async def test_published_event_reaches_a_live_subscriber(world: World, author: Author) -> None:
    event = author.note('live é\n"\\', tags=(("d", "run"), ("p", author.pubkey, "")))
    async with world.join() as alice, world.join() as bob, listening(bob, author.all) as events:
        await alice.publish(author.note("first"))
        assert (await events.receive()).content == "first"
        await alice.publish(event)
        assert await events.receive() == event


async def test_relays_that_are_not_there_may_be_named(world: World, author: Author) -> None:
    async with world.join() as alice, world.join() as bob, listening(bob, author.all) as events:
        bob.meet(["ws://127.0.0.1:9", "no address"])
        alice.meet(["ws://127.0.0.1:9"])
        alice.meet([])
        await alice.publish(event := author.note("all the same"))
        assert await events.receive() == event


async def test_late_subscriber_gets_stored_events_then_new_ones(world: World, author: Author) -> None:
    async with world.join() as alice, world.join() as bob:
        for i in range(3):
            await alice.publish(author.note(str(i), created_at=1_700_000_000 + i))
        async with listening(bob, author.all) as events:
            assert await contents(events, 3) == ["0", "1", "2"]
            await alice.publish(author.note("new"))
            assert await contents(events, 1) == ["new"]


async def test_duplicates_collapse(world: World, author: Author) -> None:
    async with (
        world.join() as alice,
        world.join() as bob,
        listening(bob, author.all, Filter(kinds=(8650,), authors=(author.pubkey,))) as events,
    ):
        await alice.publish(author.note("twice"))
        await bob.publish(author.note("twice"))
        await alice.publish(author.note("once"))
        assert await contents(events, 2) == ["once", "twice"]
        with pytest.raises(trio.WouldBlock):
            events.receive_nowait()


async def test_two_filters_select_either(world: World, author: Author) -> None:
    filters = (Filter(authors=(author.pubkey,), kinds=(8651,)), Filter(authors=(author.pubkey,), tags=(("d", ("a", "b")),)))
    async with world.join() as alice, world.join() as bob, listening(bob, *filters) as events:
        await alice.publish(author.note("neither", kind=8652, tags=(("d", "c"),)))
        await alice.publish(author.note("kind", kind=8651))
        await alice.publish(author.note("tag", kind=8652, tags=(("d", "b"),)))
        assert await contents(events, 2) == ["kind", "tag"]


async def test_since_and_until(world: World, author: Author) -> None:
    wanted = msgspec.structs.replace(author.all, since=UnixTime(20), until=UnixTime(30))
    async with world.join() as alice, world.join() as bob:
        for when in (10, 20, 30, 40):
            await alice.publish(author.note(str(when), created_at=when))
        async with listening(bob, wanted) as events:
            assert await contents(events, 2) == ["20", "30"]
            await alice.publish(author.note("25", created_at=25))
            assert await contents(events, 1) == ["25"]


async def test_history_longer_than_a_relays_answer(world: World, author: Author) -> None:
    count = 700  # LocalRelay answers with 500 unless asked for fewer
    async with world.join() as alice, world.join() as bob:
        async with trio.open_nursery() as nursery:
            for i in range(count):
                nursery.start_soon(alice.publish, author.note(str(i), created_at=1_700_000_000 + i // 3))
        async with listening(bob, author.all) as events:
            assert await contents(events, count) == sorted(map(str, range(count)))


async def test_independent_subscriptions(world: World, author: Author) -> None:
    async with world.join() as alice, listening(alice, author.all) as outer:
        async with listening(alice, author.all) as inner:
            await alice.publish(author.note("both"))
            assert await contents(inner, 1) == await contents(outer, 1) == ["both"]
        await alice.publish(author.note("one"))
        assert await contents(outer, 1) == ["one"]


@pytest.mark.parametrize(
    "changes",
    [{"content": "altered"}, {"sig": "00" * 64}, {"id": "00" * 32}],
)
async def test_invalid_event_is_refused(world: World, author: Author, changes: dict[str, str]) -> None:
    forged = msgspec.structs.replace(author.note("genuine"), **changes)
    async with world.join() as alice, world.join() as bob, listening(bob, author.all) as events:
        with pytest.raises(RemoteProtocolError):
            await alice.publish(forged)
        await alice.publish(author.note("after"))
        assert await contents(events, 1) == ["after"]


async def test_events_of_every_size_pass(world: World, author: Author) -> None:
    async with world.join() as alice, world.join() as bob, listening(bob, author.all) as events:
        for size in (0, 16_384, 65_000):
            await alice.publish(author.note("x" * size))
            assert len((await events.receive()).content) == size


def test_relay_process_ends_when_its_standard_input_closes(tmp_path: Path) -> None:
    assert RelayProcess(tmp_path).stop(how=None) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_pool_survives_a_restart_of_the_relay(tmp_path: Path, author: Author, how: signal.Signals) -> None:
    def start(options: Sequence[str]) -> RelayProcess:
        return RelayProcess(tmp_path, "--db", str(tmp_path / "db"), *options)

    relay = start([])
    port = relay.url.rpartition(":")[2]
    quick = Settings(publish_timeout_s=0.5, backoff_first_s=0.1, backoff_last_s=0.2)
    patient = Settings(backoff_first_s=0.1, backoff_last_s=0.2)
    async with (
        open_pool([relay.url], settings=quick) as alice,
        open_pool([relay.url], settings=patient) as bob,
        listening(bob, author.all) as events,
    ):
        await bob.publish(author.note("before"))
        assert await contents(events, 1) == ["before"]
        assert relay.stop(how) == (0 if how is not signal.SIGKILL else -how)
        with pytest.raises(Unavailable):
            await alice.publish(author.note("while down"))
        relay = start(["--port", port])
        await bob.publish(author.note("after"))
        assert await contents(events, 1) == ["after"]
        async with listening(bob, author.all) as again:
            assert await contents(again, 2) == ["after", "before"]
    relay.stop()
