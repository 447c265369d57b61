"""The round in which crash points are tried, its points, and a choice of them for CI. NOSTRAIN_SIM_ALL=1 takes every one."""

from __future__ import annotations

import os
import random
from collections import Counter
from functools import cache

from nostrain.protocol.manifest import ScoringSpec
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import Death, Step
from nostrain.units import Ppm
from tests.sim.world import results, simulate, to_the_end
from tests.sim_paid.accounts import FEE, check_accounts, watching, workers

PAYER, PAYEE, VALIDATOR = "coordinator", "worker-0", "validator-0"
EVERY_POINT = bool(os.environ.get("NOSTRAIN_SIM_ALL"))
SCORING = ScoringSpec(levels_ppm=(Ppm(400_000), Ppm(700_000)))
QUALITY = {PAYEE: 0.55}
"""Enough for its first level and not for its second: one is settled, the other is cancelled."""


def plan(seed: int, *deaths: Death) -> Plan:
    """One paid round of three workers. Journals are in memory; `test_paid_crashes` has them on disk."""
    return Plan(seed=seed, rounds=1, instances=2, scoring=SCORING, quality=QUALITY, fee_msat=FEE, deaths=deaths, on_disk=frozenset())


@cache
def steps(seed: int) -> dict[str, Counter[Step]]:
    """How often each participant takes each step when nobody dies."""

    async def scenario(sim: Simulation) -> dict[str, Counter[Step]]:
        async with watching(sim):  # as in the tests: a task more is another schedule
            await to_the_end(sim)
        return {name: one.steps.taken for name, one in sim.participants.items()}

    return simulate(plan(seed), scenario)


def every_death(seed: int, name: str) -> list[Death]:
    """All the points at which `name` can die, first lives only."""
    return [Death(name, step, nth) for step, count in sorted(steps(seed)[name].items()) for nth in range(1, count + 1)]


def deaths(seed: int, name: str) -> list[Death]:
    """Every point, or each step at one of its times, which the seed chooses."""
    if EVERY_POINT:
        return every_death(seed, name)
    rng = random.Random(f"{seed}/{name}")
    return [Death(name, step, rng.randint(1, count)) for step, count in sorted(steps(seed)[name].items())]


def both(port: str, *methods: str) -> set[Step]:
    """The steps before and after each method."""
    return {Step(port, method, at) for method in methods for at in ("before", "after")}  # type: ignore[arg-type]


async def paid_in_spite_of_it(sim: Simulation) -> None:
    """However often and whenever somebody died: the work of all is used, and each is paid what was attested for it, once."""
    async with watching(sim) as ended:
        await to_the_end(sim)
    check_accounts(sim)
    ended.check()
    (result,) = results(sim)
    assert {item.worker for item in result.accepted} == workers(sim)
    assert len(sim.tickets.payments) == sim.plan.workers
