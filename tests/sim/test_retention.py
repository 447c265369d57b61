"""What long runs leave on disk: the files of forgotten rounds go, whatever crashes meanwhile, and nobody misses one."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from nostrain.core.effects import Discard
from nostrain.core.pruning import KEEP_ROUNDS
from nostrain.core.rows import Outstanding
from nostrain.testing.participant import Participant
from nostrain.testing.simulation import Plan, Simulation
from nostrain.testing.steps import Death, Step
from tests.sim.world import accepted_names, check_all, results, simulate, to_the_end

ROUNDS = KEEP_ROUNDS + 6
DELTAS = 2
"""Of each round."""


def named(folder: Path) -> dict[int, list[str]]:
    """The files of the work folder by round."""
    found: dict[int, list[str]] = {}
    for path in folder.iterdir():
        match = re.search(r"\d{5}", path.name)
        if match is not None:
            found.setdefault(int(match[0]), []).append(path.name)
    return found


def check_disk(one: Participant) -> None:
    """What rows name is there; what is there is of rounds that are kept."""
    assert one.runtime is not None
    rows = one.runtime.state.rows.values()
    assert not [row for row in rows if isinstance(row, Outstanding) and isinstance(row.effect, Discard)]
    text = b"\n".join(map(msgspec.json.encode, rows)).decode()
    paths = {Path(path) for path in re.findall(rf'"({re.escape(str(one.folder))}/[^"]+)"', text)}
    assert all(path.exists() for path in paths if path.name != "work"), one.name
    old = [number for number in named(one.folder / "work") if number <= ROUNDS - KEEP_ROUNDS]
    assert len(old) <= 1, "at most the private state after the last round that used our work"


def test_a_long_run_does_not_fill_the_disk() -> None:
    async def scenario(sim: Simulation) -> None:
        assert await sim.until(lambda: len(results(sim)) >= KEEP_ROUNDS + 3, limit_s=20_000)
        sim.start("validator-3")  # it needs none of the files that are gone
        await to_the_end(sim)
        check_all(sim)
        assert sim.participants["worker-0"].crashes == sim.participants["coordinator"].crashes == 2
        assert all(accepted_names(sim, result) == {"worker-0", "worker-1"} for result in results(sim))
        for one in sim.participants.values():
            check_disk(one)
        deltas = {item.delta.sha256 for result in results(sim) for item in result.accepted}
        assert len(deltas) == DELTAS * ROUNDS
        for name in ("coordinator", "worker-0", "validator-0"):
            have = {path.name for path in (sim.participants[name].folder / "blobs").iterdir()}
            assert len(have & deltas) <= DELTAS * KEEP_ROUNDS
            assert len(sim.blobs.blobs.keys() & deltas) == DELTAS * ROUNDS, "a server of the run keeps what newcomers need"

    before, after = Step("blobs", "discard", "before"), Step("blobs", "discard", "after")
    deaths = tuple(Death(name, step, nth) for name in ("worker-0", "coordinator") for step, nth in ((before, 1), (after, 3)))
    late = frozenset({"validator-3"})
    simulate(Plan(rounds=ROUNDS, workers=2, validators=4, min_validators=3, absent=late, paid=False, deaths=deaths), scenario)
