"""Relays that others named: a run's own, and those where a recipient reads. Few, guarded, and never needed for a quorum."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.nostr.directory import LETTERS, LOOKUP_S, REMEMBER_S, Directory
from nostrain.nostr.mail import GiftWrapMail
from nostrain.nostr.pool import RelayPool, open_pool
from nostrain.nostr.strangers import MAX_GUESTS
from nostrain.protocol.event import Draft, Event, Filter
from nostrain.protocol.limits import MAX_RELAYS
from nostrain.units import UnixTime
from nostrain.wire import kinds
from nostrain.wire.discovery import draft_inbox_list, draft_relay_list
from tests.nostr.mail_world import FixedClock, Person
from tests.nostr.scripted_relay import ALICE, PlainSigner, ScriptedRelay, dial, note

WANTED = Filter(kinds=(8650,))
NOW = UnixTime(100_000)
BOB = PlainSigner("bob")


def pool(
    theirs: dict[str, ScriptedRelay] | None = None, archive: Path | None = None, **ours: ScriptedRelay
) -> AbstractAsyncContextManager[RelayPool]:
    strangers: Callable[[str], Any] | None = dial(**theirs) if theirs is not None else None
    urls = [f"ws://{name}" for name in ours]
    return open_pool(urls, rng=random.Random(7), now=lambda: NOW, connect=dial(**ours), strangers=strangers, archive=archive)


async def take(events: trio.MemoryReceiveChannel[Event], count: int) -> list[str]:
    with trio.fail_after(1_000):
        return [(await events.receive()).content for _ in range(count)]


async def test_a_runs_relay_is_read_and_written_from_then_on(autojump_clock: MockClock) -> None:
    home, theirs = ScriptedRelay(note("ours")), ScriptedRelay(note("theirs"))
    async with pool({"b": theirs}, a=home) as relays, relays.subscribe([WANTED]) as events:
        assert await take(events, 1) == ["ours"]
        relays.meet(["ws://b", "WS://B/", "nonsense", "http://b"])
        assert await take(events, 1) == ["theirs"]
        async with relays.subscribe([Filter(kinds=(1,))]) as others:
            await wait_all_tasks_blocked()
            theirs.broadcast(note("a new subscription", kind=1))
            assert await take(others, 1) == ["a new subscription"]
        await relays.publish(event := note("to both"))
        await trio.sleep(5)
        assert home.published() == theirs.published() == [event.id]
        assert set(relays.connected) == {"ws://a", "ws://b"}
        assert theirs.dials == 1


async def test_the_runs_relay_alone_makes_a_quorum_when_ours_are_away(autojump_clock: MockClock) -> None:
    home, theirs = ScriptedRelay(), ScriptedRelay()
    home.down = True
    async with pool({"b": theirs}, a=home) as relays:
        relays.meet(["ws://b"])
        await relays.publish(event := note("x"))
        assert theirs.published() == [event.id]
        home.down = False
        await trio.sleep(120)
        assert home.published() == [event.id]


async def test_dead_relays_of_a_run_cost_no_quorum(autojump_clock: MockClock) -> None:
    home, dead = ScriptedRelay(), ScriptedRelay()
    dead.down = True
    urls = [f"ws://dead{number}" for number in range(7)]
    async with pool({f"dead{number}": dead for number in range(7)}, a=home) as relays:
        relays.meet(urls)
        began = trio.current_time()
        await relays.publish(note("x"))
        assert trio.current_time() - began < 1
        home.verdicts = [(False, "blocked: no")]
        with pytest.raises(RemoteProtocolError, match="blocked"):
            await relays.publish(note("y"))


async def test_a_run_cannot_make_us_dial_without_end_or_what_is_ours_twice(autojump_clock: MockClock) -> None:
    home = ScriptedRelay()
    named = {f"r{number}": ScriptedRelay() for number in range(20)} | {"a": ScriptedRelay()}
    async with pool(named, a=home) as relays:
        relays.meet(["ws://a", *(f"ws://r{number}" for number in range(5))])
        relays.meet([f"ws://r{number}" for number in range(20)])
        await trio.sleep(10)
        assert sum(relay.dials > 0 for relay in named.values()) == MAX_RELAYS
        assert (home.dials, named["a"].dials) == (1, 0)


async def test_without_a_guard_nobody_elses_relay_is_dialled(autojump_clock: MockClock) -> None:
    home = ScriptedRelay()
    async with pool(None, a=home) as relays:
        relays.meet(["ws://b"])
        relays.forward(note("x"), ["ws://b"])
        await trio.sleep(10)
        assert relays.connected == ("ws://a",)


async def test_a_relay_that_may_not_be_dialled_harms_nothing(autojump_clock: MockClock) -> None:
    home = ScriptedRelay(note("x"))

    def refuses(url: str) -> Any:
        raise Unavailable("leads into a private network")

    async with (
        open_pool(["ws://a"], rng=random.Random(7), now=lambda: NOW, connect=dial(a=home), strangers=refuses) as relays,
        relays.subscribe([WANTED]) as events,
    ):
        relays.meet(["ws://inside"])
        assert await take(events, 1) == ["x"]
        await trio.sleep(3_600)
        assert relays.counts["connection lost"] < 40


async def test_a_guest_is_brought_its_mail_and_nothing_else(autojump_clock: MockClock, tmp_path: Path) -> None:
    home, guest = ScriptedRelay(), ScriptedRelay()
    guest.down = True
    async with pool({"g": guest}, tmp_path / "published.sqlite", a=home) as relays:
        await relays.publish(note("public"))
        relays.forward(wrap := note("for bob", kind=1059), ["ws://g", "ws://a"])
        await trio.sleep(60)
        guest.down = False
        async with relays.subscribe([WANTED]):
            await trio.sleep(2 * 3_600)
        assert guest.published() == [wrap.id]
        assert guest.requests() == []
        assert wrap.id not in home.published()


async def test_guests_make_room_for_others(autojump_clock: MockClock) -> None:
    home, guests = ScriptedRelay(), {f"g{number}": ScriptedRelay() for number in range(MAX_GUESTS + 3)}
    async with pool(guests, a=home) as relays:
        for name in guests:
            relays.forward(note(name, kind=1059), [f"ws://{name}"])
        await trio.sleep(10)
        served = [name for name, guest in guests.items() if guest.published()]
        assert len(served) == MAX_GUESTS
        assert "g0" not in served
        relays.forward(note("again", kind=1059), ["ws://g0"])
        await trio.sleep(10)
        assert len(guests["g0"].published()) == 2


def inboxes(*urls: str, at: int = 5_000, signer: PlainSigner = BOB) -> Event:
    return signer.sign(draft_inbox_list(urls, UnixTime(at)))


async def run_directory(relays: RelayPool, nursery: trio.Nursery) -> Directory:
    directory = Directory(relays)
    nursery.start_soon(directory.run)
    await wait_all_tasks_blocked()
    return directory


async def test_letters_are_brought_to_where_their_recipient_reads(autojump_clock: MockClock) -> None:
    alice, bob = Person("alice"), Person("bob")
    listed = bob.signer.sign(draft_inbox_list(("ws://g", "ws://a"), UnixTime(5_000)))
    home, guest = ScriptedRelay(listed), ScriptedRelay()
    async with pool({"g": guest}, a=home) as relays, trio.open_nursery() as nursery:
        directory = await run_directory(relays, nursery)
        mail = GiftWrapMail(relays, alice.mailbox, FixedClock(), threads=False, forward=directory.forward)
        began = trio.current_time()
        await mail.send(alice.letter("hello"), bob.pubkey)
        assert trio.current_time() - began < 1  # the look-up is not waited for
        await trio.sleep(LOOKUP_S + 5)
        assert guest.published() == home.published()
        assert len(guest.published()) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("stored", "found"),
    [
        ([], ()),
        ([inboxes("wss://new"), inboxes("wss://old", at=4_000)], ("wss://new",)),
        ([inboxes("wss://dm"), BOB.sign(draft_relay_list(["wss://general"], UnixTime(6_000)))], ("wss://dm",)),
        ([BOB.sign(draft_relay_list(["wss://general"], UnixTime(6_000)))], ("wss://general",)),
        ([inboxes("wss://someone", signer=ALICE)], ()),
        ([BOB.sign(Draft(UnixTime(1), kinds.INBOX_RELAYS, (("relay",), ("x",)), "junk"))], ()),
    ],
)
async def test_whose_word_counts(stored: list[Event], found: tuple[str, ...], autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(*stored)
    async with pool({}, a=relay) as relays:
        directory = Directory(relays)
        assert await directory.inboxes(BOB.pubkey) == found


async def test_lists_are_remembered_for_an_hour(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay(inboxes("wss://first"))
    async with pool({}, a=relay) as relays:
        directory = Directory(relays)
        assert await directory.inboxes(BOB.pubkey) == ("wss://first",)
        relay.events.append(inboxes("wss://second", at=6_000))
        asked = len(relay.requests())
        assert await directory.inboxes(BOB.pubkey) == ("wss://first",)
        assert len(relay.requests()) == asked
        await trio.sleep(REMEMBER_S)
        assert await directory.inboxes(BOB.pubkey) == ("wss://second",)


async def test_a_flood_of_letters_is_bounded(autojump_clock: MockClock) -> None:
    relay = ScriptedRelay()
    async with pool({}, a=relay) as relays:
        directory = Directory(relays)
        for number in range(LETTERS + 7):
            directory.forward(note(str(number), kind=1059), BOB.pubkey)
        assert directory.counts["not forwarded"] == 7
