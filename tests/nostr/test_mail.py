"""Mail over gift wraps where the contract is silent: hostile wraps, duplicates, old wraps, slow readers, relays that fail."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.nostr import mail
from nostrain.nostr.mail import GiftWrapMail
from nostrain.protocol.event import Event
from nostrain.testing.relays import FakeRelayNetwork, FakeRelays, Faults
from nostrain.units import UnixTime
from tests.nostr.wraps import ALICE, BOB, EVE, hostile

from .mail_world import FixedClock, Person


@asynccontextmanager
async def posted(network: FakeRelayNetwork, person: Person, name: str) -> AsyncIterator[tuple[GiftWrapMail, FakeRelays]]:
    async with network.open(name) as relays:
        yield GiftWrapMail(relays, person.mailbox, FixedClock(), threads=False), relays


async def test_hostile_wraps_are_counted_and_mail_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    network = FakeRelayNetwork()
    bad = [wrap for _, wrap, _ in hostile() if wrap.kind == 1059 and wrap.tag("p") == BOB.pubkey]
    async with posted(network, ALICE, "alice") as (hers, relays), posted(network, BOB, "bob") as (his, _), his.inbox() as letters:
        with caplog.at_level(logging.WARNING, "nostrain.nostr"):
            for wrap in bad:
                await relays.publish(wrap)
            await hers.send(ALICE.letter("after"), BOB.pubkey)
            assert (await letters.receive()).content == "after"
    assert his.counts == {"bad letter": len(bad)}
    assert 15 < len(bad) == len(caplog.records)


async def test_a_flood_is_not_logged_line_by_line(caplog: pytest.LogCaptureFixture) -> None:
    network = FakeRelayNetwork()
    async with posted(network, EVE, "eve") as (hers, relays), posted(network, BOB, "bob") as (his, _), his.inbox() as letters:
        with caplog.at_level(logging.WARNING, "nostrain.nostr"):
            for number in range(100):
                await relays.publish(EVE.signs(1059, f"junk {number}", (("p", BOB.pubkey),)))
            await hers.send(EVE.letter("end"), BOB.pubkey)
            await letters.receive()
    assert his.counts["bad letter"] == 100
    assert len(caplog.records) == 16 + 2  # the first sixteen, then 32 and 64


async def test_one_letter_in_two_wraps_is_read_once() -> None:
    network = FakeRelayNetwork()
    async with posted(network, ALICE, "alice") as (hers, _), posted(network, BOB, "bob") as (his, _), his.inbox() as letters:
        for content in ("one", "one", "two"):
            await hers.send(ALICE.letter(content), BOB.pubkey)
        assert [(await letters.receive()).content for _ in range(2)] == ["one", "two"]
        assert his.counts == {"duplicate letter": 1}


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail, "REMEMBERED", 2)
    network = FakeRelayNetwork()
    async with posted(network, ALICE, "alice") as (hers, _), posted(network, BOB, "bob") as (his, _), his.inbox() as letters:
        for content in ("1", "2", "2", "3", "1"):
            await hers.send(ALICE.letter(content), BOB.pubkey)
        assert [(await letters.receive()).content for _ in range(4)] == ["1", "2", "3", "1"]


async def test_wraps_of_the_last_three_days_are_read_and_older_ones_not(autojump_clock: trio.testing.MockClock) -> None:
    network = FakeRelayNetwork()
    made = ALICE.mailbox.wrap(ALICE.letter("recent"), BOB.pubkey)
    day = 24 * 3600

    class Later(FixedClock):
        def __init__(self, days: int) -> None:
            self._days = days

        def now(self) -> UnixTime:
            return UnixTime(made.created_at + self._days * day)

    async with network.open("alice") as relays:
        await relays.publish(made)
        async with GiftWrapMail(relays, BOB.mailbox, Later(3), threads=False).inbox() as letters:
            assert (await letters.receive()).content == "recent"
        async with GiftWrapMail(relays, BOB.mailbox, Later(4), threads=False).inbox() as letters:
            with trio.move_on_after(3600) as scope:
                await letters.receive()
            assert scope.cancelled_caught


async def test_a_relay_that_is_away_is_unavailable() -> None:
    async with FakeRelayNetwork(0, Faults(unavailable=1.0)).open("alice") as relays:
        with pytest.raises(Unavailable):
            await GiftWrapMail(relays, ALICE.mailbox, FixedClock()).send(ALICE.letter("x"), BOB.pubkey)


async def test_mail_that_cannot_be_wrapped_is_our_fault() -> None:
    async with FakeRelayNetwork().open("alice") as relays:
        with pytest.raises(LocalProtocolError):
            await GiftWrapMail(relays, ALICE.mailbox, FixedClock()).send(BOB.letter("x"), BOB.pubkey)


async def test_a_slow_reader_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    network = FakeRelayNetwork(0, Faults(delay_s=(0.0, 2.0), duplication=0.5, loss=0.3))
    async with posted(network, ALICE, "alice") as (hers, _), posted(network, BOB, "bob") as (his, _), his.inbox() as letters:
        for number in range(30):
            await hers.send(ALICE.letter(f"{number:02d}"), BOB.pubkey)
        got: list[Event] = []
        while len(got) < 30:
            await trio.sleep(3)
            got.append(await letters.receive())
    assert sorted(letter.content for letter in got) == [f"{number:02d}" for number in range(30)]


async def test_the_inbox_ends_with_the_relays_and_may_be_closed_early() -> None:
    network = FakeRelayNetwork()
    async with posted(network, BOB, "bob") as (his, relays):
        async with his.inbox() as letters:
            relays.close()
            assert [letter async for letter in letters] == []
        async with posted(network, ALICE, "alice") as (hers, _), his.inbox() as letters:
            letters.close()
            await hers.send(ALICE.letter("nobody reads this"), BOB.pubkey)
            await trio.testing.wait_all_tasks_blocked()
    assert not his.counts
