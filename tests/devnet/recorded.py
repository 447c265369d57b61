"""The events of a whole run, made by a simulation in virtual time: what an observer of a devnet would read, without any process."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trio
from trio.testing import MockClock

from nostrain.devnet.layout import Options, Participant, Role, roles_of
from nostrain.devnet.observer import Observer
from nostrain.protocol.event import Event
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Pubkey

ROUNDS, WORKERS, VALIDATORS = 2, 3, 3


@dataclass(frozen=True)
class Recording:
    """Every event in order of publication, and who is who."""

    events: tuple[Event, ...]
    names: dict[Pubkey, str]
    checkpoints: dict[str, bytes]

    @property
    def participants(self) -> list[Participant]:
        """As a devnet has them."""
        keys = {name: key for key, name in self.names.items()}
        wanted = roles_of(Options(workers=WORKERS, validators=VALIDATORS))
        return [Participant(name, role, Path("/nowhere") / name, keys[name]) for name, role in wanted]

    def watched(self, count: int | None = None, *, without: frozenset[int] = frozenset()) -> tuple[Observer, list[str]]:
        """An observer that has read the first `count` events, but for those at the places in `without`; and what it said."""
        lines: list[str] = []
        observer = Observer(lines.append, self.names)
        observer.roles = tuple(one.role for one in self.participants)
        for place, event in enumerate(self.events[:count]):
            if place not in without:
                observer.take(event)
        return observer, lines


@cache
def recording() -> Recording:
    """One unpaid run of two rounds; made once."""
    with tempfile.TemporaryDirectory() as folder:
        return trio.run(record, Path(folder), clock=MockClock(autojump_threshold=0))


async def record(folder: Path) -> Recording:
    simulation = Simulation(Plan(rounds=ROUNDS, workers=WORKERS, validators=VALIDATORS, paid=False), folder)
    async with simulation.running():
        everyone = simulation.participants.values()
        assert await simulation.until(lambda: all(one.run is not None and one.run.finished for one in everyone), limit_s=7200)
        await trio.sleep(60)
    names = {one.pubkey: devnet_name(one.name, one.role) for one in everyone}
    return Recording(tuple(simulation.relays.events.values()), names, dict(simulation.blobs.blobs))


def devnet_name(name: str, role: Role) -> str:
    """Simulations count from 0, devnets from 1."""
    return name if role == "coordinator" else f"{role}-{int(name.rpartition('-')[2]) + 1}"
