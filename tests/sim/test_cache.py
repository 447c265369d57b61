"""A run whose participants have room for two shards: it goes as without a bound, also through crashes, and nobody keeps more."""

from __future__ import annotations

from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import Death, Step
from tests.sim.world import accepted_names, check_all, results, simulate, to_the_end

ROUNDS = 4
CACHE_BYTES = 250
"""The stub engine's shards have some 110 bytes."""


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
            assert any(note.counter == "shards_evicted" for note in one.notes)

    deaths = (Death("worker-0", Step("blobs", "discard", "before"), 1), Death("validator-0", Step("blobs", "discard", "after"), 2))
    simulate(Plan(rounds=ROUNDS, workers=2, paid=False, cache_bytes=CACHE_BYTES, deaths=deaths), scenario)
