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


def rows_now(sim: Simulation) -> dict[str, int]:
    """How many rows each participant that runs has."""
    return {name: len(one.runtime.state.rows) for name, one in sim.participants.items() if one.runtime is not None}


def check_rows(counts: list[dict[str, int]]) -> None:
    """From as many rounds on as are kept, a journal has no more rows; one more validator, who comes then, adds some to each round that is kept."""
    full, before, last = counts[KEEP_ROUNDS - 1], counts[KEEP_ROUNDS + 2], counts[-1]
    for name, rows in full.items():
        assert before[name] <= rows + 1, name
        assert last[name] <= 1.1 * rows, name


def test_a_long_run_does_not_fill_the_disk() -> None:
    async def scenario(sim: Simulation) -> None:
        counts = []
        for number in range(1, ROUNDS):
            assert await sim.until(lambda number=number: len(results(sim)) >= number, limit_s=20_000)
            counts.append(rows_now(sim))
            if number == KEEP_ROUNDS + 3:
                sim.start("validator-3")  # it needs none of the files that are gone
        await to_the_end(sim)
        check_rows(counts)
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
