"""What strangers send through relays: refused, counted, and never the end of the loop; what we contradict ourselves is."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from nostrain.core import node
from nostrain.core.inputs import Received
from nostrain.core.rows import NodeState
from nostrain.errors import IllegalTransition, LocalProtocolError
from nostrain.protocol.event import Draft
from nostrain.protocol.messages import Acknowledgement, Message
from nostrain.units import Digest, EventId, Pubkey, UnixTime
from nostrain.wire import kinds
from nostrain.wire.messages import draft
from tests.daemon.world import SIGNER, Toy, Watched, command, make_ports, until


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    return Toy(monkeypatch)


def a_message() -> Message:
    word = Digest("ab" * 32)
    body = Acknowledgement(EventId(word), EventId(word), 1, EventId(word), word)
    return Message(EventId("cd" * 32), Pubkey("ef" * 32), UnixTime(1), body)


async def test_a_message_that_breaks_the_machines_is_dropped_and_told(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """Relays would deliver it again to the restarted process, and to everyone else."""
    real = toy.step

    def broken(state: NodeState, input_: object, now: UnixTime) -> object:
        if isinstance(input_, Received):
            raise KeyError("surprise")
        return real(state, input_, now)  # type: ignore[arg-type]

    monkeypatch.setattr(node, "step", broken)
    runtime = Watched(make_ports(tmp_path), tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await runtime.put(Received(a_message()))
        await runtime.put(command(5))
        await until(lambda: "height" in runtime.state.rows)
        nursery.cancel_scope.cancel()
    assert runtime.counters == {"messages_broken": 1}
    assert "cdcdcdcd" in runtime.notes[0].text
    assert "efefefef" in runtime.notes[0].text
    assert "KeyError" in runtime.notes[0].text


@pytest.mark.parametrize("error", [IllegalTransition("no"), LocalProtocolError("contradiction")])
async def test_a_program_that_contradicts_itself_ends(
    tmp_path: Path, toy: Toy, monkeypatch: pytest.MonkeyPatch, error: Exception, autojump_clock: MockClock
) -> None:
    real = toy.step

    def contradicting(state: NodeState, input_: object, now: UnixTime) -> object:
        if isinstance(input_, Received):
            raise error
        return real(state, input_, now)  # type: ignore[arg-type]

    monkeypatch.setattr(node, "step", contradicting)
    runtime = Watched(make_ports(tmp_path), tmp_path)
    await runtime.put(Received(a_message()))
    with pytest.RaisesGroup(pytest.RaisesExc(type(error))):
        await runtime.run()


async def test_an_event_that_says_nonsense_is_counted_and_goes_no_further(tmp_path: Path, toy: Toy, autojump_clock: MockClock) -> None:
    runtime = Watched(make_ports(tmp_path), tmp_path)
    sound = draft(a_message().body, UnixTime(1_750_000_000))
    nonsense = Draft(created_at=sound.created_at, kind=kinds.ACKNOWLEDGEMENT, tags=sound.tags, content="{")
    await runtime.receive(SIGNER.sign(nonsense))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(runtime.run)
        await runtime.receive(SIGNER.sign(sound))
        await until(lambda: len(toy.taken) == 2)
        nursery.cancel_scope.cancel()
    assert runtime.counters == {"messages_refused": 1}
    assert isinstance(toy.taken[1][1], Received)
