"""Several rounds escrowed and paid at once: for the mean of their scores, whoever is missing, late, silent or restarted meanwhile."""

from __future__ import annotations

import dataclasses
import random

import pytest

from nostrain.core.escrow.rows import Payee, Payer
from nostrain.core.rounds import epoch
from nostrain.core.rows import Round
from nostrain.protocol.messages import Announcement, EpochAttestation, Offer
from nostrain.testing.relays import Faults
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import When, at_commit
from nostrain.units import Msat
from tests.sim.world import LIMIT_S, reached, rows_of, simulate, to_the_end
from tests.sim_paid.accounts import FEE, check_accounts, watching

QUALITY = {"worker-3": 0.62, "worker-4": 0.3}


async def paid(sim: Simulation, *, but: frozenset[str] = frozenset()) -> Simulation:
    async with watching(sim) as ended:
        await to_the_end(sim, but=but)
        assert await sim.until(lambda: sim.ledger.held() == 0, limit_s=LIMIT_S)
    ended.check()
    return sim


def anchors(sim: Simulation) -> dict[int, Round]:
    """The rounds that opened an epoch, as the coordinator has them."""
    firsts = range(1, sim.plan.rounds + 1, sim.plan.epoch_rounds)
    rows = {row.announcement.round: row for row in rows_of(sim, "coordinator", Round)}
    return {number: rows[number] for number in firsts}


def test_one_escrow_an_epoch_pays_the_mean_of_its_rounds(rng: random.Random) -> None:
    """Three rounds in epochs of two: the last is shorter. Every worker is offered one escrow an epoch and paid by it alone."""
    plan = Plan(seed=rng.randrange(1 << 30), on_disk=frozenset(), rounds=3, epoch_rounds=2, workers=5, fee_msat=FEE, quality=QUALITY)
    sim = simulate(plan, paid)
    check_accounts(sim)
    offered = [(message.body.announcement, message.body.payee) for message in sim.mailed(Offer) if isinstance(message.body, Offer)]
    opened = {row.id for row in anchors(sim).values()}
    assert len(offered) == len(set(offered)) == 2 * plan.workers
    assert {announcement for announcement, _ in offered} == opened
    assert len(sim.said(EpochAttestation)) == 2 * plan.validators
    levels = {name: [reached(sim, row.id, sim.key(name)) for row in anchors(sim).values()] for name in ("worker-0", "worker-3", "worker-4")}
    assert min(levels["worker-0"]) == 4
    assert all(0 < level < 4 for level in levels["worker-3"])
    assert levels["worker-4"] == [0, 0]


def test_the_level_is_that_of_the_published_scores(rng: random.Random) -> None:
    """What validators signed is what a stranger computes from the verdicts that the rounds' attestations name."""
    plan = Plan(seed=rng.randrange(1 << 30), on_disk=frozenset(), rounds=2, epoch_rounds=2, fee_msat=FEE)
    sim = simulate(plan, paid)
    for number, anchor in anchors(sim).items():
        rows = [row for row in rows_of(sim, "coordinator", Round) if row.announcement.round in (number, number + 1)]
        assert all(len(attestation.verdicts) == plan.validators for row in rows for _, attestation in row.attestations.values())
        said = {message.body.verdicts for message in sim.said(EpochAttestation) if getattr(message.body, "announcement", None) == anchor.id}
        assert said == {epoch.verdicts_digest(sorted(rows, key=lambda row: row.announcement.round))}


def test_a_round_without_its_worker_counts_as_nothing(rng: random.Random) -> None:
    """A worker that stops after the first of two rounds is paid half of its level; the others all of theirs; its money is not held beyond the epoch."""

    async def stops(sim: Simulation) -> Simulation:
        assert await sim.until(lambda: len(sim.said(Announcement)) >= 2, limit_s=LIMIT_S)
        sim.participants["worker-2"].stop()
        await sim.until(lambda: bool(sim.said(EpochAttestation)), limit_s=LIMIT_S)
        sim.start("worker-2")
        return await paid(sim)

    sim = simulate(Plan(seed=rng.randrange(1 << 30), on_disk=frozenset(), rounds=2, epoch_rounds=2, fee_msat=FEE), stops)
    check_accounts(sim)
    (anchor,) = anchors(sim).values()
    assert reached(sim, anchor.id, sim.key("worker-0")) == 4
    assert reached(sim, anchor.id, sim.key("worker-2")) == 2


def test_an_epoch_without_enough_validators_pays_nothing_and_returns_everything(rng: random.Random) -> None:
    """Two of three validators die in the second round: nobody can be paid for the epoch, and every hold is given back."""

    async def die(sim: Simulation) -> Simulation:
        assert await sim.until(lambda: len(sim.said(Announcement)) >= 2, limit_s=LIMIT_S)
        for name in ("validator-0", "validator-1"):
            sim.participants[name].stop()
        assert await sim.until(lambda: sim.ledger.held() == 0, limit_s=LIMIT_S)
        return sim

    sim = simulate(Plan(seed=rng.randrange(1 << 30), on_disk=frozenset(), rounds=2, epoch_rounds=2, fee_msat=FEE), die)
    assert sim.ledger.total() == sim.funds
    assert all(sim.ledger.balances[name] == 0 for name in ("worker-0", "worker-1", "worker-2"))  # two tickets each, and no reward


def test_newcomers_wait_for_the_next_epoch(rng: random.Random) -> None:
    """A worker that enrols in the middle of an epoch is listed, locked and paid from the next one on."""

    async def late(sim: Simulation) -> Simulation:
        assert await sim.until(lambda: len(sim.said(Announcement)) >= 1, limit_s=LIMIT_S)
        sim.start("worker-2")
        return await paid(sim)

    plan = Plan(
        seed=rng.randrange(1 << 30),
        on_disk=frozenset(),
        rounds=4,
        epoch_rounds=2,
        fee_msat=FEE,
        min_workers=2,
        absent=frozenset({"worker-2"}),
    )
    sim = simulate(plan, late)
    check_accounts(sim)
    listed = {m.body.round: sim.key("worker-2") in m.body.workers for m in sim.said(Announcement) if isinstance(m.body, Announcement)}
    assert listed == {1: False, 2: False, 3: True, 4: True}
    assert reached(sim, anchors(sim)[3].id, sim.key("worker-2")) == 4


@pytest.mark.parametrize("name", ["coordinator", "worker-1", "validator-1"])
def test_crashes_in_an_epoch(name: str, rng: random.Random) -> None:
    """A crash after a random commit, with faults of relays and Lightning: the same invariants."""
    seed = rng.randrange(1 << 30)
    plan = Plan(
        seed=seed, on_disk=frozenset(), rounds=2, epoch_rounds=2, fee_msat=FEE, lost_replies=2, faults=Faults(loss=0.1, duplication=0.1)
    )
    last = simulate(plan, paid).participants[name].steps.taken[at_commit(name, 0, When.AFTER).step]
    death = at_commit(name, random.Random(seed).randrange(2, last), When.AFTER)
    sim = simulate(dataclasses.replace(plan, deaths=(death,)), paid)
    assert sim.participants[name].crashes == 1
    check_accounts(sim)
    assert Msat(sum(level.state.value == "paid" for row in rows_of(sim, "coordinator", Payer) for level in row.levels)) > 0
    assert rows_of(sim, "worker-0", Payee)
