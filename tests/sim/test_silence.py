"""Who says nothing: validators up to n − t cost nobody anything; more of them cost the work of the round, never money."""

from __future__ import annotations

from nostrain.core.rows import Submission
from nostrain.core.tables import SubmissionState
from nostrain.protocol.messages import Announcement, Receipt, Result, Reveal
from nostrain.testing.simulation import Plan, Simulation
from tests.sim.world import accepted_names, check_all, locked_levels, results, rows_of, simulate, to_the_end


def test_one_of_three_validators_falls_silent_and_all_are_paid() -> None:
    async def scenario(sim: Simulation) -> None:
        await sim.until(lambda: bool(sim.said(Announcement)), limit_s=500)
        sim.participants["validator-2"].stop()
        await to_the_end(sim, but=frozenset({"validator-2"}))
        check_all(sim)
        for result in results(sim):
            assert accepted_names(sim, result) == {"worker-0", "worker-1"}
        assert sim.ledger.balances["worker-0"] == 2 * 4 * sim.plan.level_msat

    simulate(Plan(rounds=2, workers=2, instances=2), scenario)


def test_two_of_three_fall_silent_after_the_locks_and_all_money_returns() -> None:
    async def scenario(sim: Simulation) -> None:
        await sim.until(lambda: bool(sim.said(Receipt)), limit_s=500)
        assert sim.ledger.held() == 2 * 4 * sim.plan.level_msat
        for name in ("validator-1", "validator-2"):
            sim.participants[name].stop()
        await to_the_end(sim, but=frozenset({"validator-1", "validator-2"}))
        check_all(sim)
        assert [result.accepted for result in results(sim)] == [()]
        assert locked_levels(sim)
        assert sim.ledger.balances["coordinator"] == sim.funds

    simulate(Plan(rounds=1, workers=2, instances=2), scenario)


def test_two_of_three_that_never_speak_again_leave_no_work_used_and_none_shown() -> None:
    async def scenario(sim: Simulation) -> None:
        await sim.until(lambda: bool(sim.said(Announcement)), limit_s=500)
        for name in ("validator-1", "validator-2"):
            sim.participants[name].stop()
        await to_the_end(sim, but=frozenset({"validator-1", "validator-2"}))
        check_all(sim)
        assert [result.accepted for result in results(sim)] == [(), ()]
        assert {row.state for row in rows_of(sim, "worker-0", Submission)} == {SubmissionState.REFUSED}
        assert sim.ledger.balances["coordinator"] == sim.funds

    simulate(Plan(rounds=2, workers=2, instances=2), scenario)


def test_a_run_goes_on_after_a_round_that_came_to_nothing() -> None:
    """The deltas of the first round were shown and never used; in the second, honest work is not taken for a copy of itself."""

    async def scenario(sim: Simulation) -> None:
        assert await sim.until(lambda: len(sim.said(Reveal)) == 2, limit_s=500)
        for name in ("validator-1", "validator-2"):
            sim.participants[name].stop()
        assert await sim.until(lambda: len(sim.said(Announcement)) == 2, limit_s=5_000)
        for name in ("validator-1", "validator-2"):
            sim.start(name)
        await to_the_end(sim)
        check_all(sim)
        assert [len(result.accepted) for result in results(sim)] == [0, 2, 2]

    simulate(Plan(rounds=3, workers=2, instances=2), scenario)


def test_a_worker_that_vanishes_is_left_out_after_three_rounds_and_enrols_again() -> None:
    async def scenario(sim: Simulation) -> None:
        await sim.until(lambda: bool(sim.said(Announcement)), limit_s=500)
        sim.participants["worker-1"].stop()
        assert await sim.until(lambda: len(sim.said(Announcement)) == 4, limit_s=5_000)
        missing = sim.key("worker-1")
        listed = [missing in message.body.workers for message in sim.said(Announcement) if isinstance(message.body, Announcement)]
        assert listed == [True, True, True, False]
        sim.start("worker-1")
        await to_the_end(sim)
        check_all(sim)
        assert [missing in message.body.workers for message in sim.said(Announcement)][-1]  # type: ignore[union-attr]
        assert accepted_names(sim, results(sim)[-1]) == {"worker-0", "worker-1"}

    simulate(Plan(rounds=7, workers=2, paid=False), scenario)


def test_a_coordinator_that_closes_early_does_not_get_the_work_for_nothing() -> None:
    """It sees the deltas, then publishes an empty result before anyone has attested: the validators attest all the same, and the locks open."""

    async def scenario(sim: Simulation) -> None:
        assert await sim.until(lambda: len(sim.said(Reveal)) == 2, limit_s=500)
        coordinator = sim.participants["coordinator"]
        coordinator.stop()
        announcement = sim.said(Announcement)[0]
        replica = coordinator.replica
        assert replica is not None
        assert isinstance(announcement.body, Announcement)
        assert replica.blob is not None
        assert replica.root is not None
        empty = Result(
            run=announcement.body.run,
            announcement=announcement.id,
            round=1,
            attestations=(),
            accepted=(),
            refused=(),
            committed=2,
            state_id=announcement.body.state_id,
            root=replica.root,
            checkpoint=replica.blob,
        )
        sim.relays.accept(coordinator.sign(empty))
        await sim.until(lambda: sim.ledger.held() == 0, limit_s=2_000)
        check_all(sim)
        assert sim.ledger.balances["worker-0"] == sim.ledger.balances["worker-1"] == 4 * sim.plan.level_msat

    simulate(Plan(rounds=1, workers=2, instances=2), scenario)
