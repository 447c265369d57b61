"""A simulated paid run, in inputs a second: machines alone, then with the journal's commits (synchronous=FULL, as live, one input a commit)."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import msgspec
import trio
from trio.testing import MockClock

from nostrain.core import node
from nostrain.core.rows import NodeState
from nostrain.daemon.storage import Logged, batch_of
from nostrain.journal.sqlite import SqliteJournal
from nostrain.testing.simulation import Plan, Simulation


async def simulate(folder: Path, plan: Plan) -> list[Logged]:
    """The coordinator's audit log of a whole run: the busiest node's inputs."""
    sim = Simulation(plan, folder)
    async with sim.running():
        await sim.until(lambda: all(one.run is not None and one.run.finished for one in sim.participants.values()), limit_s=36_000)
    with SqliteJournal.open(folder / "coordinator" / "journal.sqlite") as journal:
        return [msgspec.json.decode(data, type=Logged) for _, data in journal.inputs()]


def main() -> None:
    """Print the two figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Plan(rounds=options.rounds, workers=options.workers, instances=2)
        log = trio.run(simulate, folder, plan, clock=MockClock(autojump_threshold=0))
        begin, state = time.perf_counter(), NodeState()
        for logged in log:
            state = node.step(state, logged.input, logged.at).state
        stepped = time.perf_counter() - begin
        begin, state = time.perf_counter(), NodeState()
        with SqliteJournal.open(folder / "bench.sqlite") as journal:
            for logged in log:
                after = node.step(state, logged.input, logged.at).state
                journal.commit(batch_of([logged], state, after))
                state = after
        committed = time.perf_counter() - begin
    print(
        f"{options.workers} workers, {options.rounds} paid rounds: {len(log)} inputs that changed the coordinator's state, {len(state.rows)} rows at the end"
    )
    print(f"machines alone        {stepped:7.2f} s   {len(log) / stepped:9,.0f} inputs/s")
    print(f"with a commit for each {committed:6.2f} s   {len(log) / committed:9,.0f} inputs/s")


if __name__ == "__main__":
    main()
