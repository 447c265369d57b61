"""A node's shell with fake ports, and toy machines whose every move a test commands: what the shell promises is then seen alone."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from nostrain.core import node
from nostrain.core.effects import Draw, Drawn, Effect, Outcome
from nostrain.core.identity import Identity
from nostrain.core.inputs import Block, Boot, Done, Input
from nostrain.core.rows import Chain, NodeState, Outstanding, Row
from nostrain.core.transaction import Note
from nostrain.daemon import runtime as runtime_module
from nostrain.daemon.ports import Ports
from nostrain.daemon.runtime import Runtime
from nostrain.keys.signer import NostrSigner
from nostrain.keys.store import RootSecret
from nostrain.ports.journal import Journal
from nostrain.ports.relays import Relays
from nostrain.testing.blobs import FakeBlobs, FakeBlobServer
from nostrain.testing.clock import VirtualClock
from nostrain.testing.engine import StubEngine
from nostrain.testing.entropy import SeededEntropy
from nostrain.testing.journal import MemoryJournal
from nostrain.testing.relays import FakeRelayNetwork, FakeRelays
from nostrain.units import BlockHeight, UnixTime

SIGNER = NostrSigner(RootSecret(bytes(range(32))))


def make_ports(folder: Path, *, journal: Journal | None = None, relays: Relays | None = None, **others: Any) -> Ports:
    """Ports of one node on fakes, inline and in virtual time."""
    ports = Ports(
        clock=VirtualClock(),
        entropy=SeededEntropy(1, "world"),
        signer=SIGNER,
        oracle=None,
        relays=FakeRelays(FakeRelayNetwork(), "node") if relays is None else relays,
        blobs=FakeBlobs(FakeBlobServer(), folder / "blobs", random.Random(1)),
        engine=StubEngine(),
        journal=MemoryJournal() if journal is None else journal,
        threads=False,
    )
    return replace(ports, **others)


def make_identity(folder: Path) -> Identity:
    """Someone without a role."""
    return Identity(pubkey=SIGNER.pubkey, name="node", roles=(), work_dir=str(folder))


def ask(name: str, size: int = 8) -> Draw:
    """An effect of the toy machines; another `size` makes it another effect of the same id."""
    return Draw(owner="toy", name=name, size=size)


def command(number: int) -> Block:
    """An input of the toy machines."""
    return Block(BlockHeight(number))


class Toy:
    """Machines with a script: `on[number]` changes the rows when command `number` comes; an outcome is kept under `got/<effect id>`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on: dict[int, Callable[[dict[str, Row]], None]] = {}
        self.after_done: Callable[[dict[str, Row], Done], None] = lambda _rows, _done: None
        self.deadlines: Callable[[NodeState], list[int]] = lambda _state: []
        self.taken: list[tuple[int, Input]] = []
        monkeypatch.setattr(node, "step", self.step)
        monkeypatch.setattr(node, "next_deadline", self.next_deadline)

    def step(self, state: NodeState, input_: Input, now: UnixTime) -> node.Step:
        rows = dict(state.rows)
        self.taken.append((now, input_))
        match input_:
            case Block(height=height):
                rows["height"] = Chain(height)
                self.on.get(height, lambda _rows: None)(rows)
            case Done(effect=effect, outcome=Drawn(data=data)):
                del rows[f"effect/{effect}"]
                rows[f"got/{effect}"] = Chain(BlockHeight(int(data, 16)))
                self.after_done(rows, input_)
            case Boot(identity=identity):
                rows["node"] = identity
            case _:
                pass
        return node.Step(NodeState(rows), (), ())

    def next_deadline(self, state: NodeState, after: UnixTime) -> UnixTime | None:
        return min((UnixTime(at) for at in self.deadlines(state) if at > after), default=None)

    def got(self, runtime: Runtime, name: str) -> int | None:
        """The outcome that the machines were given for an effect."""
        row = runtime.state.rows.get(f"got/toy#{name}")
        return row.height if isinstance(row, Chain) else None


def lists(*effects: Effect) -> Callable[[dict[str, Row]], None]:
    """A change that lists `effects`, replacing those of the same id."""

    def change(rows: dict[str, Row]) -> None:
        rows.update({f"effect/{effect.id}": Outstanding(effect) for effect in effects})

    return change


def withdraws(*effects: Effect) -> Callable[[dict[str, Row]], None]:
    """A change that takes `effects` back."""

    def change(rows: dict[str, Row]) -> None:
        for effect in effects:
            rows.pop(f"effect/{effect.id}", None)

    return change


class Performer:
    """Stands in for `runners.perform`: an effect ends when the test lets it, with the number that the test gives it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started: list[tuple[float, Effect]] = []
        self.cancelled: list[Effect] = []
        self.seen_in_journal: list[bool] = []
        self._outcomes: dict[Effect, int] = {}
        self._let = trio.Event()
        monkeypatch.setattr(runtime_module, "perform", self.perform)

    def let(self, effect: Effect, number: int = 1) -> None:
        """Let `effect` end, now or as soon as it runs."""
        self._outcomes[effect] = number
        event, self._let = self._let, trio.Event()
        event.set()

    async def perform(self, effect: Effect, ports: Ports) -> Outcome:
        self.started.append((trio.current_time(), effect))
        row = ports.journal.load().get(f"effect/{effect.id}")
        self.seen_in_journal.append(row is not None and msgspec.json.decode(row, type=Outstanding).effect == effect)
        try:
            while effect not in self._outcomes:
                await self._let.wait()
        except trio.Cancelled:
            self.cancelled.append(effect)
            raise
        return Drawn(f"{self._outcomes[effect]:02x}")

    @property
    def ran(self) -> list[Effect]:
        """Effects in the order they were started."""
        return [effect for _, effect in self.started]


class Watched(Runtime):
    """A runtime whose notes are kept."""

    def __init__(self, ports: Ports, folder: Path) -> None:
        self.notes: list[Note] = []
        super().__init__(ports, make_identity(folder), observe=self.notes.append)


async def until(condition: Callable[[], bool], limit_s: float = 3600, step_s: float = 0.05) -> None:
    """Wait in virtual time."""
    with trio.fail_after(limit_s):
        while not condition():
            await trio.sleep(step_s)
