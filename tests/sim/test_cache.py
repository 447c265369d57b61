"""A run whose participants have room for two shards: it goes as without a bound, also through crashes, and nobody keeps more."""

from __future__ import annotations

from nostrain.core.rounds.assigned import assigned
from nostrain.core.rows import Round
from nostrain.protocol.manifest import RunManifest
from nostrain.testing.participant import Participant
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import Death, Step
from tests.sim.world import accepted_names, check_all, results, simulate, to_the_end

ROUNDS = 4
CACHE_BYTES = 250
"""The stub engine's shards have some 110 bytes."""


def rounds(one: Participant) -> list[Round]:
    """Those that a participant has in its rows: all, in a run as short as this."""
    assert one.runtime is not None
    return [row for row in one.runtime.state.rows.values() if isinstance(row, Round)]


def test_shards_come_and_go() -> None:
    async def scenario(sim: Simulation) -> None:
        await to_the_end(sim)
        check_all(sim)
        assert sim.participants["worker-0"].crashes == sim.participants["validator-0"].crashes == 1
        assert all(accepted_names(sim, result) == {"worker-0", "worker-1"} for result in results(sim))
        for name in ("worker-0", "worker-1", "validator-0", "validator-1"):
            one = sim.participants[name]
            assert one.replica is not None
            dataset = one.replica.dataset
            assert dataset is not None
            have = {path.name for path in (one.folder / "blobs").iterdir()}
            assert 0 < len(have & {shard.sha256 for shard in dataset.shards}) <= 2, name
            # Which shards come up follows from the ids of events: a worker may well have met no more than it has room for.
            met = {assigned(round_, dataset, one.pubkey).shard for round_ in rounds(one) if one.role == "worker"}
            evicted = any(note.counter == "shards_evicted" for note in one.notes)
            assert evicted or (met and len(met) <= 2), name

    deaths = (Death("worker-0", Step("blobs", "discard", "before"), 1), Death("validator-0", Step("blobs", "discard", "after"), 2))
    simulate(Plan(rounds=ROUNDS, workers=2, paid=False, cache_bytes=CACHE_BYTES, deaths=deaths), scenario)


def test_a_poisoned_shard_costs_no_round() -> None:
    """The server has other bytes for every shard until some time into the first round: they are refused, asked for again, and used when right."""

    async def scenario(sim: Simulation) -> None:
        assert await sim.until(lambda: bool(sim.said(RunManifest)), limit_s=2_000)
        good = {digest: data for digest, data in sim.blobs.blobs.items() if b"nostrain-stub-shard" in data}
        assert len(good) > 2
        sim.blobs.blobs |= {digest: b"poison" + data[6:] for digest, data in good.items()}
        begun = sim.clock.now()
        assert await sim.until(lambda: sim.clock.now() > begun + 60, limit_s=100)
        assert not results(sim)
        for name in ("worker-0", "worker-1"):
            one = sim.participants[name]
            assert one.run is not None
            assert one.run.open is not None, "the round is open"
            have = {path.name for path in (one.folder / "blobs").iterdir()}
            assert not have & good.keys(), "nothing is kept under a name that is not its own"
        sim.blobs.blobs |= good
        await to_the_end(sim)
        check_all(sim)
        assert all(accepted_names(sim, result) == {"worker-0", "worker-1"} for result in results(sim))

    simulate(Plan(rounds=2, workers=2, paid=False), scenario)
