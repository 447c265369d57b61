"""A relay shows some readers as many other commitments of a worker as anyone keeps, before the one that the coordinator sees and pins."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from nostrain.core.rounds.speakers import MAX_ALTERNATIVES
from nostrain.daemon import feeds
from nostrain.daemon.runtime import Runtime
from nostrain.protocol.messages import Announcement, Commitment
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Digest

VICTIMS = ("worker-1", "validator-0")


async def flood(simulation: Simulation) -> None:
    """What the first worker never said to anybody else, said to the victims while it trains."""
    await simulation.until(lambda: bool(simulation.said(Announcement)), limit_s=600)
    (announcement,) = simulation.said(Announcement)
    assert isinstance(announcement.body, Announcement)
    for name in VICTIMS:
        runtime = simulation.participants[name].runtime
        assert runtime is not None
        for n in range(MAX_ALTERNATIVES):
            said = Commitment(announcement.body.run, announcement.id, 1, Digest(f"{n:064x}"), announcement.body.state_id)
            await runtime.receive(simulation.participants["worker-0"].sign(said))


async def deaf(_runtime: Runtime) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize("asks", [True, False], ids=["who_asks_goes_on", "who_does_not_waits_for_ever"])
async def test_a_commitment_that_is_pinned_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock, *, asks: bool
) -> None:
    if not asks:
        monkeypatch.setattr(feeds, "missing_feed", deaf)
    simulation = Simulation(Plan(rounds=1, workers=3, validators=3, paid=False, on_disk=frozenset()), tmp_path)
    async with simulation.running():
        await flood(simulation)
        everyone = simulation.participants.values()
        finished = await simulation.until(lambda: all(one.run is not None and one.run.finished for one in everyone), limit_s=3600)
        behind = {one.name for one in everyone if one.run is None or not one.run.finished}
        refused = {one.name for one in everyone if any("more than 64 in one round" in note.text for note in one.notes)}
    assert refused == set(VICTIMS)
    assert (finished, behind) == ((True, set()) if asks else (False, set(VICTIMS)))
