"""The smallest paid round, and the commits of a participant in it at which it may die."""

from __future__ import annotations

from functools import cache

from nostrain.protocol.manifest import ScoringSpec
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import When, at_commit
from nostrain.units import Ppm
from tests.sim.world import simulate, to_the_end
from tests.sim_paid.accounts import FEE

PAYER, PAYEE = "coordinator", "worker-0"
SEED = 1
SCORING = ScoringSpec(levels_ppm=(Ppm(400_000), Ppm(700_000)))


def plan(name: str, at: int, when: When) -> Plan:
    """The smallest paid round."""
    return Plan(
        seed=SEED,
        rounds=1,
        workers=2,
        instances=2,
        scoring=SCORING,
        fee_msat=FEE,
        deaths=(at_commit(name, at, when),),
        on_disk=frozenset({name}),
    )


@cache
def commits(name: str) -> int:
    """How many commits `name` makes in a run without a crash."""

    async def scenario(sim: Simulation) -> int:
        await to_the_end(sim)
        return sim.participants[name].steps.taken[at_commit(name, 0, When.BEFORE).step]

    return simulate(plan(name, 0, When.BEFORE), scenario)
