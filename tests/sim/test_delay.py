"""Delayed runs: everybody trains while the round before is scored; a crash of a worker costs it a round at most, and nobody else anything.

Crash points are a sample of a worker's commits until the second round opens; NOSTRAIN_SIM_ALL=1 takes every one of them, and those before.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache

import pytest

from nostrain.core.ahead_rows import Ahead
from nostrain.core.rows import Submission
from nostrain.ports.lightning import HoldState
from nostrain.protocol.manifest import ScoringSpec
from nostrain.protocol.messages import Announcement, Commitment, Receipt
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import When, at_commit
from nostrain.units import Ppm
from tests.sim.world import accepted_names, check_all, results, rows_of, simulate, to_the_end

NAME = "worker-0"
TRAIN_S = 20.0
EVERY_COMMIT = bool(os.environ.get("NOSTRAIN_SIM_ALL"))
SAMPLE = 3


def plan(*, paid: bool, **fields: object) -> Plan:
    """Two workers that train for twenty seconds; everything else is quick."""
    scoring = ScoringSpec(levels_ppm=(Ppm(400_000), Ppm(700_000)))
    chosen = {"rounds": 3, "workers": 2, "instances": 2, "scoring": scoring, "train_s": TRAIN_S, "delay": 1, "paid": paid, **fields}
    return Plan(**chosen)  # type: ignore[arg-type]


def crashing(at: int, when: When, *, paid: bool) -> Plan:
    """A worker dies at that commit."""
    return plan(paid=paid, deaths=(at_commit(NAME, at, when),), on_disk=frozenset({NAME}))


@cache
def commits(paid: bool) -> int:
    """How many commits the worker makes until the second round opens."""

    async def scenario(sim: Simulation) -> int:
        await sim.until(lambda: len(sim.said(Announcement)) == 2, limit_s=2_000)
        return sim.participants[NAME].steps.taken[at_commit(NAME, 0, When.BEFORE).step]

    return simulate(crashing(0, When.BEFORE, paid=paid), scenario)


async def survives(sim: Simulation) -> None:
    """The run ends with everybody's work in its last round."""
    await to_the_end(sim)
    check_all(sim)
    assert sim.participants[NAME].crashes == 1
    assert accepted_names(sim, results(sim)[-1]) == {"worker-0", "worker-1"}
    assert not rows_of(sim, NAME, Ahead)
    committed = [message for message in sim.said(Commitment) if message.author == sim.key(NAME)]
    assert len({message.body.round for message in committed}) >= 2  # type: ignore[union-attr] # of three, the crash costs one at most


@pytest.mark.parametrize("paid", [False, True])
def test_a_round_takes_as_long_as_training_and_everybody_agrees(paid: bool) -> None:
    """From the second round on nobody waits for a training to begin: rounds follow each other by what is left of it."""

    async def scenario(sim: Simulation) -> list[int]:
        await to_the_end(sim)
        check_all(sim)
        assert all(accepted_names(sim, result) == {"worker-0", "worker-1"} for result in results(sim))
        assert all(row.reason is None for row in rows_of(sim, NAME, Submission))
        if sim.plan.paid:
            settled = sum(invoice.state is HoldState.PAID for invoice in sim.ledger.invoices.values())
            assert settled == sim.plan.rounds * sim.plan.workers * len(sim.plan.scoring.levels_ppm)
        return sorted(message.created_at for message in sim.said(Receipt))

    delayed = simulate(plan(paid=paid), scenario)
    waiting = simulate(plan(paid=paid, delay=0), scenario)
    assert delayed[-1] - delayed[0] < waiting[-1] - waiting[0]


@pytest.mark.parametrize("when", When if EVERY_COMMIT else [When.AFTER])
@pytest.mark.parametrize("paid", [False, True])
def test_a_crash_around_a_commit(paid: bool, when: When) -> None:
    last = commits(paid)
    assert last > 2 * SAMPLE
    for at in range(1, last + 1, 1 if EVERY_COMMIT else last // SAMPLE):
        simulate(crashing(at, when, paid=paid), survives)


def test_who_comes_late_joins_with_the_next_round_but_one() -> None:
    """It trains for the first round of which it knows the base in time."""

    async def scenario(sim: Simulation) -> None:
        await sim.until(lambda: len(sim.said(Announcement)) == 2, limit_s=2_000)
        sim.start("worker-2")
        await to_the_end(sim)
        check_all(sim)
        assert accepted_names(sim, results(sim)[-1]) == {"worker-0", "worker-1", "worker-2"}

    simulate(replace(plan(paid=False, rounds=5), workers=3, min_workers=2, absent=frozenset({"worker-2"})), scenario)
