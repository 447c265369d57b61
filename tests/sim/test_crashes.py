"""A crash at every commit of every role, with a restart: the run goes on, no invariant breaks, the crashed one takes part in the next round.

Points are the commits from birth until the second round opens: all the stages of a life. NOSTRAIN_SIM_ALL=1 goes on to the last commit.
"""

from __future__ import annotations

import os
from functools import cache

import pytest

from nostrain.protocol.manifest import ScoringSpec
from nostrain.protocol.messages import Accepted, Announcement, Result
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import When, at_commit
from nostrain.units import Ppm
from tests.sim.world import check_all, confirmations, results, simulate, to_the_end

ROLES = ("coordinator", "validator-0", "worker-0")
EVERY_COMMIT = bool(os.environ.get("NOSTRAIN_SIM_ALL"))
GROUPS = 4
SAMPLE = 12
"""Every so many commits the crash also comes just before one."""


def plan(name: str, at: int, when: When) -> Plan:
    """The smallest network that can lose one of each role for a moment."""
    scoring = ScoringSpec(levels_ppm=(Ppm(400_000), Ppm(700_000)))
    return Plan(rounds=2, workers=2, instances=2, scoring=scoring, deaths=(at_commit(name, at, when),), on_disk=frozenset({name}))


@cache
def commits(name: str) -> int:
    """How many commits `name` makes until the second round opens, or in the whole run."""

    async def scenario(sim: Simulation) -> int:
        await sim.until(lambda: len(sim.said(Announcement)) == 2, limit_s=2_000)
        if EVERY_COMMIT:
            await to_the_end(sim)
        return sim.participants[name].steps.taken[at_commit(name, 0, When.BEFORE).step]

    return simulate(plan(name, 0, When.BEFORE), scenario)


async def survives(sim: Simulation) -> None:
    """The run ends, with everybody, and with the work of everybody in the round after the crash."""
    (death,) = sim.plan.deaths
    crashed = sim.participants[death.name]
    await to_the_end(sim)
    assert crashed.crashes == 1
    check_all(sim)
    last = results(sim)[-1]
    assert {item.worker for item in last.accepted} == {one.pubkey for one in sim.live("worker")}
    assert set(confirmations(sim, last.round)) == {one.pubkey for one in sim.participants.values()}
    if crashed.role == "validator":
        assert crashed.pubkey in attesters(sim, last)
    if crashed.role == "worker":
        assert all(isinstance(item, Accepted) and item.level > 0 for item in last.accepted)


def attesters(sim: Simulation, result: Result) -> set[str]:
    """Whose attestations a result cites."""
    return {event.pubkey for event in sim.relays.events.values() if event.id in result.attestations}


@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.parametrize("name", ROLES)
def test_a_crash_after_every_commit(name: str, group: int) -> None:
    points = range(1 + group, commits(name) + 1, GROUPS)
    assert len(points) > 5
    for at in points:
        simulate(plan(name, at, When.AFTER), survives)


@pytest.mark.parametrize("name", ROLES)
def test_a_crash_before_a_commit(name: str) -> None:
    points = range(1, commits(name) + 1, SAMPLE)
    assert len(points) > 3
    for at in points:
        simulate(plan(name, at, When.BEFORE), survives)
