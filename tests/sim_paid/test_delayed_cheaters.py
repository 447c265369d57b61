"""Cheats in a delayed run, where deltas are handed in before the round that they are for is announced: they earn nothing there either."""

from __future__ import annotations

from pathlib import Path

from nostrain.core.escrow.rows import Payee
from nostrain.core.tables import PayeeState
from nostrain.devnet.cheaters import USELESS, Cheat
from nostrain.protocol.manifest import ScoringSpec
from nostrain.protocol.messages import Commitment
from nostrain.testing.simulation import Plan, Simulation
from nostrain.units import Msat, Ppm
from tests.sim.world import accepted_names, check_nothing_broke, check_states, results, rows_of, simulate, to_the_end
from tests.sim_paid.test_cheaters import FEE, gained, money_is_whole, runners

HONEST = {"worker-0", "worker-1", "worker-2"}
CHEATS: dict[str, Cheat] = {"worker-3": "noise", "worker-4": "copy-digest", "worker-5": "copy-previous", "worker-6": "no-reveal"}
LEVELS = ScoringSpec(levels_ppm=(Ppm(400_000), Ppm(700_000)))


def test_cheaters_of_a_delayed_run_pay_for_nothing_and_the_honest_are_paid(tmp_path: Path) -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        money_is_whole(sim)
        check_states(sim)
        check_nothing_broke(sim)
        for result in results(sim):
            assert accepted_names(sim, result) == HONEST, result.refused
        gains = gained(sim)
        tickets = sim.plan.rounds * FEE
        earned = sim.plan.rounds * len(LEVELS.levels_ppm) * sim.plan.level_msat
        assert {name: gains[name] for name in HONEST} == dict.fromkeys(HONEST, earned - tickets)
        assert all(gains[name] <= -FEE for name in CHEATS)
        assert {level.state for name in CHEATS for row in rows_of(sim, name, Payee) for level in row.levels} == {PayeeState.CANCELLED}
        assert len(sim.said(Commitment)) == sim.plan.rounds * sim.plan.workers, "cheaters are in time"

    plan = Plan(
        rounds=2,
        workers=len(HONEST) + len(CHEATS),
        instances=2,
        scoring=LEVELS,
        fee_msat=FEE,
        funds_msat=Msat(1 << 40),
        delay=1,
        quality={name: 0.0 for name, cheat in CHEATS.items() if cheat in USELESS},
        runners=runners(CHEATS, tmp_path / "twins"),
    )
    simulate(plan, scenario)
