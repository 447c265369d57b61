"""Whole runs, fault-free and under seeded faults of relays, mail, blobs and Lightning: the machines, locks, oracles and journals of the daemon."""

from __future__ import annotations

import os

import pytest

from nostrain.core.rows import Outstanding, Waiting
from nostrain.testing.relays import Faults
from nostrain.testing.simulation import Plan, Simulation
from tests.sim.world import (
    accepted_names,
    check_all,
    confirmations,
    reached,
    results,
    round_rows,
    rows_of,
    simulate,
    to_the_end,
)

SEEDS = range(int(os.environ.get("NOSTRAIN_SIM_SEEDS", "6")))
FAULTS = Faults(loss=0.1, duplication=0.2, unavailable=0.1, delay_s=(0, 3))


def test_a_paid_run_without_faults() -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_all(sim)
        for number, result in enumerate(results(sim), start=1):
            assert accepted_names(sim, result) == {"worker-0", "worker-1", "worker-2"}
            assert set(confirmations(sim, number)) == {one.pubkey for one in sim.participants.values()}
            assert set(confirmations(sim, number).values()) == {result.state_id}
        assert len(results(sim)) == 2

    simulate(Plan(rounds=2, workers=3), scenario)


def test_each_worker_earns_what_was_attested_for_it() -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_all(sim)
        earned = {}
        for one in sim.live("worker"):
            levels = [reached(sim, row.id, one.pubkey) for row in round_rows(sim, one.name).values()]
            earned[one.name] = sum(levels) * sim.plan.level_msat
            assert sim.ledger.balances[one.name] == earned[one.name]
        assert sim.ledger.balances["coordinator"] == sim.funds - sum(earned.values())
        assert len(set(earned.values())) > 1, "the plan is meant to give workers different levels"

    simulate(Plan(rounds=2, workers=5, instances=2, quality={"worker-1": 0.55, "worker-3": 0.65}), scenario)


def test_an_unpaid_run_moves_no_money() -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_all(sim)
        assert not sim.ledger.invoices
        assert len(results(sim)[0].accepted) == 3

    simulate(Plan(rounds=1, paid=False), scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_loss_duplication_reordering_delay_and_silence_of_services(seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_all(sim)
        assert all(len(result.accepted) == 3 for result in results(sim)), [result.refused for result in results(sim)]

    simulate(Plan(seed=seed, rounds=2, faults=FAULTS, unavailable=0.1, lost_replies=4, instances=2), scenario)


@pytest.mark.parametrize("seed", SEEDS)
def test_heavy_loss_costs_work_and_never_money_or_agreement(seed: int) -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_all(sim)

    faults = Faults(loss=0.4, duplication=0.4, unavailable=0.3, delay_s=(0, 20))
    simulate(Plan(seed=1000 + seed, rounds=2, workers=2, faults=faults, unavailable=0.3, lost_replies=9, instances=2), scenario)


def test_the_same_seed_gives_the_same_run() -> None:
    async def scenario(sim: Simulation) -> tuple[list[str], int]:
        await to_the_end(sim)
        return list(sim.relays.events), sim.clock.now()

    plan = Plan(seed=7, rounds=1, workers=2, faults=FAULTS, unavailable=0.1, instances=2)
    first, second = simulate(plan, scenario), simulate(plan, scenario)
    assert first == second


def test_nothing_is_left_to_do_when_the_run_is_over() -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        for name in sim.participants:
            assert not rows_of(sim, name, Outstanding)
            assert not rows_of(sim, name, Waiting)

    simulate(Plan(rounds=2, workers=2, faults=FAULTS, instances=2), scenario)
