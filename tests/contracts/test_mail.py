"""What every mail promises (ports.mail). On the fake; NIP-59 gift wraps over relays join with the money path.

Letters are complete signed events; they arrive at least once, at the addressee only, also when it was away.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable

import pytest
import trio
import trio.testing

from nostrain.errors import Unavailable
from nostrain.ports.mail import Mail
from nostrain.protocol.event import Event
from nostrain.testing.mail import FakeMail, FakePostOffice
from nostrain.units import Pubkey
from tests.docs.examples import COORDINATOR, WORKERS, Examples

LETTERS = list(Examples().private.values())
REQUERY_S = 30.0


def office(**faults: object) -> FakePostOffice:
    """A post office; without faults unless they are named."""
    return FakePostOffice(random.Random(7), requery_s=REQUERY_S, **faults)  # type: ignore[arg-type]


def mail(at: FakePostOffice, pubkey: Pubkey = WORKERS[0].pubkey) -> Mail:
    return FakeMail(at, pubkey)


async def received(box: trio.MemoryReceiveChannel[Event], count: int) -> list[Event]:
    return [await box.receive() for _ in range(count)]


def test_it_has_the_methods_of_the_port() -> None:
    def parameters(method: Callable[..., object]) -> list[str]:
        return [name for name in inspect.signature(method).parameters if name != "self"]

    for name in ("send", "inbox"):
        assert parameters(getattr(mail(office()), name)) == parameters(getattr(Mail, name))


async def test_a_letter_arrives_as_it_was_signed(autojump_clock: object) -> None:
    at = office()
    async with mail(at).inbox() as box:
        await mail(at, COORDINATOR.pubkey).send(LETTERS[0], WORKERS[0].pubkey)
        assert await box.receive() == LETTERS[0]


async def test_a_letter_waits_for_whoever_is_away_and_comes_again_after_a_restart(autojump_clock: object) -> None:
    at = office()
    for letter in LETTERS:
        await mail(at, COORDINATOR.pubkey).send(letter, WORKERS[0].pubkey)
    for _ in range(2):
        async with mail(at).inbox() as box:
            assert await received(box, len(LETTERS)) == LETTERS


async def test_a_letter_is_for_its_addressee_only(autojump_clock: object) -> None:
    at = office()
    async with mail(at, WORKERS[1].pubkey).inbox() as box:
        await mail(at).send(LETTERS[0], WORKERS[0].pubkey)
        with trio.move_on_after(10 * REQUERY_S) as waited:
            await box.receive()
        assert waited.cancelled_caught


async def test_the_same_letter_may_come_twice(autojump_clock: object) -> None:
    at = office()
    async with mail(at).inbox() as box:
        for _ in range(2):
            await mail(at).send(LETTERS[0], WORKERS[0].pubkey)
        assert await received(box, 2) == [LETTERS[0]] * 2


async def test_a_letter_that_is_lost_on_its_way_comes_with_the_next_look(autojump_clock: object) -> None:
    at = office(loss=1.0)
    async with mail(at).inbox() as box:
        await trio.testing.wait_all_tasks_blocked()
        await mail(at).send(LETTERS[0], WORKERS[0].pubkey)
        began = trio.current_time()
        assert await box.receive() == LETTERS[0]
        assert 0 < trio.current_time() - began <= REQUERY_S


async def test_a_letter_that_no_relay_takes_is_unavailable_and_may_be_sent_again(autojump_clock: object) -> None:
    at = office(unavailable=1.0)
    with pytest.raises(Unavailable):
        await mail(at).send(LETTERS[0], WORKERS[0].pubkey)
    at.unavailable = 0.0
    await mail(at).send(LETTERS[0], WORKERS[0].pubkey)
    async with mail(at).inbox() as box:
        assert await box.receive() == LETTERS[0]


async def test_letters_take_their_time(autojump_clock: object) -> None:
    at = office(delay_s=(2.0, 3.0))
    began = trio.current_time()
    await mail(at).send(LETTERS[0], WORKERS[0].pubkey)
    assert 2.0 <= trio.current_time() - began <= 3.0


async def test_a_reader_that_leaves_takes_nobody_with_it(autojump_clock: object) -> None:
    at = office()
    async with mail(at).inbox():
        pass
    await mail(at).send(LETTERS[0], WORKERS[0].pubkey)
    async with mail(at).inbox() as box:
        assert await box.receive() == LETTERS[0]
