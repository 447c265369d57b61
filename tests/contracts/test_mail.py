"""One suite for `ports.mail.Mail`: on the fake, and on gift wraps over fake relays and over nostr-sdk's relay in a process of its own."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import TypeAlias

import pytest
import trio

from nostrain.keys.mailbox import GiftWraps
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.nostr.mail import GiftWrapMail
from nostrain.nostr.pool import open_pool
from nostrain.ports.mail import Mail
from nostrain.protocol.event import Draft, Event
from nostrain.testing.mail import FakeMail, FakePostOffice
from nostrain.testing.relays import FakeRelayNetwork
from nostrain.units import Pubkey, UnixTime

PATIENCE_S = 10


class WallClock:
    """The relay's clock and ours."""

    def now(self) -> UnixTime:
        return UnixTime(int(time.time()))

    async def sleep_until(self, when: UnixTime) -> None:
        raise AssertionError("mail does not wait")


class Person:
    """A key of this test's own, so that tests can share a relay."""

    def __init__(self, name: str) -> None:
        self.root = RootSecret(sha256(name.encode()).digest())
        self.signer = NostrSigner(self.root)
        self.pubkey: Pubkey = self.signer.pubkey

    def letter(self, content: str) -> Event:
        return self.signer.sign(Draft(UnixTime(1_700_000_000), 8680, (("t", "nostrain"),), content))


@pytest.fixture(scope="module")
def relay_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port_file = tmp_path_factory.mktemp("relay") / "port"
    command = [sys.executable, "-m", "nostrain.devnet.relay", "--port-file", str(port_file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 0


class World:
    """Where people post. Everyone keeps their own connections."""

    def __init__(self, kind: str, url: str | None) -> None:
        self._kind, self._url = kind, url
        self._office, self._network, self._count = FakePostOffice(random.Random(0)), FakeRelayNetwork(), 0

    @asynccontextmanager
    async def join(self, person: Person) -> AsyncIterator[Mail]:
        self._count += 1
        if self._kind == "fake":
            yield FakeMail(self._office, person.pubkey)
            return
        relays = self._network.open(f"participant {self._count}") if self._url is None else open_pool([self._url])
        async with relays as joined:
            yield GiftWrapMail(joined, GiftWraps(person.root, WallClock()), WallClock())


@pytest.fixture(params=["fake", "wraps on fake relays", "wraps on a relay"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param, request.getfixturevalue("relay_url") if request.param == "wraps on a relay" else None)


Trio: TypeAlias = tuple[Person, Person, Person]


@pytest.fixture
def people(request: pytest.FixtureRequest) -> Trio:
    alice, bob, carol = (Person(f"{request.node.nodeid}/{name}") for name in ("alice", "bob", "carol"))
    return alice, bob, carol


@asynccontextmanager
async def reading(mail: Mail) -> AsyncIterator[trio.MemoryReceiveChannel[Event]]:
    """An inbox, with a limit to the test's patience."""
    with trio.fail_after(PATIENCE_S):
        async with mail.inbox() as letters:
            yield letters


async def distinct(letters: trio.MemoryReceiveChannel[Event], count: int) -> list[Event]:
    """The next `count` different letters, by content: a port may deliver twice and in any order."""
    found: dict[str, Event] = {}
    while len(found) < count:
        letter = await letters.receive()
        found[letter.id] = letter
    return sorted(found.values(), key=lambda letter: letter.content)


async def test_a_letter_reaches_an_open_inbox_whole(world: World, people: Trio) -> None:
    alice, bob, _ = people
    letter = alice.letter('whole é\n"\\')
    async with world.join(alice) as hers, world.join(bob) as his, reading(his) as letters:
        await hers.send(letter, bob.pubkey)
        assert await letters.receive() == letter


async def test_letters_wait_for_whoever_is_away(world: World, people: Trio) -> None:
    alice, bob, _ = people
    sent = [alice.letter(str(number)) for number in range(3)]
    async with world.join(alice) as hers, world.join(bob) as his:
        for letter in sent:
            await hers.send(letter, bob.pubkey)
        for _ in range(2):  # an inbox that is opened again starts again
            async with reading(his) as letters:
                assert await distinct(letters, 3) == sent


async def test_only_the_recipient_gets_it(world: World, people: Trio) -> None:
    alice, bob, carol = people
    async with (
        world.join(alice) as hers,
        world.join(bob) as his,
        world.join(carol) as third,
        reading(his) as letters,
        reading(third) as others,
    ):
        await hers.send(alice.letter("for bob"), bob.pubkey)
        await hers.send(alice.letter("for carol"), carol.pubkey)
        assert [letter.content for letter in await distinct(letters, 1)] == ["for bob"]
        assert [letter.content for letter in await distinct(others, 1)] == ["for carol"]


async def test_both_directions_and_to_oneself(world: World, people: Trio) -> None:
    alice, bob, _ = people
    async with world.join(alice) as hers, world.join(bob) as his, reading(hers) as to_her, reading(his) as to_him:
        await hers.send(alice.letter("ask"), bob.pubkey)
        await his.send(bob.letter("answer"), alice.pubkey)
        await hers.send(alice.letter("note"), alice.pubkey)
        assert [letter.content for letter in await distinct(to_her, 2)] == ["answer", "note"]
        assert [letter.pubkey for letter in await distinct(to_him, 1)] == [alice.pubkey]


async def test_sending_twice_is_harmless(world: World, people: Trio) -> None:
    alice, bob, _ = people
    letter, last = alice.letter("again"), alice.letter("last")
    async with world.join(alice) as hers, world.join(bob) as his, reading(his) as letters:
        await hers.send(letter, bob.pubkey)
        await hers.send(letter, bob.pubkey)
        await hers.send(last, bob.pubkey)
        assert await distinct(letters, 2) == [letter, last]


async def test_the_largest_letters_pass(world: World, people: Trio) -> None:
    alice, bob, _ = people
    letter = alice.letter("x" * 16_384)
    async with world.join(alice) as hers, world.join(bob) as his, reading(his) as letters:
        await hers.send(letter, bob.pubkey)
        assert await letters.receive() == letter


async def test_many_letters_at_once(world: World, people: Trio) -> None:
    alice, bob, _ = people
    async with world.join(alice) as hers, world.join(bob) as his, reading(his) as letters:
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(hers.send, alice.letter(f"{number:02d}"), bob.pubkey)
        assert [letter.content for letter in await distinct(letters, 40)] == [f"{number:02d}" for number in range(40)]
