"""One worker alone on a core behind a slow link: how much of a round it trains, and where the rest of the time goes.

    scripts/bench link [--mbit 100] [--rtt-ms 50] [--rounds 8] [--first 2] [--validators 1] [--delay 1] [--scored 4096] [--json FILE]

A real, unpaid devnet (tiny model, H = 30), twice: the worker's connections through a TCP proxy with the link's rate and delay, and straight.
The worker and its engine have one core to themselves, everybody else and the proxy have the others. Before, the same training job runs
with nothing of ours beside it (`_alone.py`). Rounds count from announcement to announcement; the first, in which engines warm up, and the last do not.
With --delay 1 the worker trains while its validators score; then a round counts from the begin of one training to that of the next
(`_ahead.py`), and validators read only `--scored` tokens for each of their two measurements, so that they are not slower than the worker.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import _ahead
import trio
from _throttle import Link

from nostrain.config.load import load_config
from nostrain.config.scoring import ScoringConfig
from nostrain.devnet.layout import Options, lay_out
from nostrain.devnet.observer import Observer, Watched
from nostrain.devnet.processes import Processes
from nostrain.devnet.supervisor import STAGGER_S, Devnet, start_relays
from nostrain.protocol.manifest import TimingSpec

WORKER = "worker-1"
ALONE_TIMES = 5
PATIENT = TimingSpec(commit_s=900, acknowledge_s=300, reveal_s=300, verdict_s=900, attest_s=300, grace_s=30)
"""Deadlines that a crowded machine keeps too; phases end as soon as everyone has spoken."""
VALIDATION = "validation (the worker waits)"
PHASES = (
    "announcement → training begins (fetch)",
    "training",
    "encoding",
    "around the job (frames, queue)",
    "commitment → receipt",
    "acknowledgement",
    "upload and reveal",
    VALIDATION,
    "attestation",
    "aggregation, result",
    "result → next announcement (confirm)",
)


def alone(folder: Path, core: int, delay: int) -> list[dict[str, float]]:
    """Rounds of `_alone.py`, without the first two, in which the engine warms up."""
    script = str(Path(__file__).with_name("_alone.py"))
    command = (sys.executable, script, str(folder), str(core), str(ALONE_TIMES + 2), str(delay))
    lines = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    return [json.loads(line) for line in lines[2:]]


@dataclass
class Went:
    """One devnet, as it went."""

    phases: dict[str, float]
    """Mean seconds a round."""
    wall_s: float
    rounds: int
    setup_s: float
    """From the worker's start to the first announcement."""
    up: float
    down: float
    """Bytes a round over the link; 0 without one."""
    others_s: float = 0.0
    """Delayed runs: from a receipt to the next announcement, which is what training need not wait for."""
    computed: dict[str, float] = field(default_factory=dict)
    """Delayed runs: processor seconds a round, as `_ahead.COMPUTED`."""


@asynccontextmanager
async def network(root: Path, options: Options, link: Link | None, core: int) -> AsyncIterator[tuple[Devnet, float]]:
    """A devnet whose worker is on `core`, behind `link`, and traced in `root/trace`; and when the worker was started."""
    processes = Processes()
    try:
        relays = await start_relays(processes, root, options)
        participants = lay_out(root, options, list(relays.values()))
        observer = Observer(lambda line: print(f"    {line}", flush=True), {one.pubkey: one.name for one in participants})
        devnet = Devnet(root, options, processes, relays, participants, observer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(devnet.follow)
            for participant in participants[:-1]:
                await devnet.start(participant)
                await trio.sleep(STAGGER_S)
            worker = participants[-1]
            assert worker.name == WORKER
            servers = load_config(participants[0].config, (), os.environ).blobs.servers
            ports = [urlsplit(url).port or 0 for url in (*relays.values(), *servers)]
            detours = [f"{port}={await link.listen(nursery, port)}" for port in ports] if link else []
            script = str(Path(__file__).with_name("_traced_worker.py"))
            command = (sys.executable, script, str(worker.config), str(root / "trace"), str(core), *detours)
            await processes.start(worker.name, command, worker.log)
            yield devnet, time.monotonic()
            nursery.cancel_scope.cancel()
    finally:
        await processes.stop_all()


async def devnet_run(root: Path, options: Options, link: Link | None, core: int, first: int) -> Went:
    """Run it to the end; the rounds from `first` on count."""
    async with network(root, options, link, core) as (devnet, started):
        observer = devnet.observer
        zero = time.monotonic() - observer.elapsed()
        sent: dict[int, tuple[int, int]] = {}
        while not observer.done:
            await devnet.wait_for(devnet.changed.is_set)
            for number in observer.rounds:
                sent.setdefault(number, (link.up.bytes, link.down.bytes) if link else (0, 0))
            if observer.run is not None and observer.run.halted is not None:
                raise SystemExit(f"the run was halted: {observer.run.halted}")
    lines = [json.loads(line) for line in (root / "trace").read_text().splitlines()]
    setup = observer.rounds[1].seen["announced"] + zero - started
    if options.delay:
        ahead = _ahead.found(lines, observer.rounds, zero, first)
        up, down = ((sent[max(sent)][way] - sent[2][way]) / (max(sent) - 2) for way in range(2))
        return Went(ahead.phases, sum(ahead.phases.values()), ahead.rounds, setup, up, down, ahead.others, ahead.computed)
    trainings = {line["owner"]: line for line in lines if "train_ms" in line}
    measured = range(first, max(observer.rounds))
    parts = [phases(observer.rounds[n], observer.rounds[n + 1], trainings[f"work/{observer.rounds[n].round.id}"], zero) for n in measured]
    mean = {name: statistics.mean(part[name] for part in parts) for name in PHASES}
    up, down = ((sent[measured.stop][way] - sent[first][way]) / len(measured) for way in range(2))
    return Went(mean, sum(mean.values()), len(measured), setup, up, down)


def phases(watched: Watched, following: Watched, training: dict[str, Any], zero: float) -> dict[str, float]:
    """Seconds of a round, from its announcement to the next one, in `PHASES`. Observer and worker have one clock, but for `zero`."""
    at = {name: when + zero for name, when in watched.seen.items()}
    train, encode = training["train_ms"] / 1000, training["encode_ms"] / 1000
    begin, end = training["begin"], training["end"]
    ends = [at["committed"], at["acknowledged"], at["revealed"], at["scored"], at["attested"], at["closed"]]
    ends.append(following.seen["announced"] + zero)
    waits = [after - before for before, after in zip([end, *ends], ends, strict=False)]
    return dict(zip(PHASES, [begin - at["announced"], train, encode, end - begin - train - encode, *waits], strict=True))


def waited(went: Went) -> float:
    """Seconds a round that the worker did nothing, because validators had not finished."""
    return went.phases.get(VALIDATION, 0.0) + went.phases.get(_ahead.PHASES[3], 0.0)


def show(found: dict[str, Went], taken: list[dict[str, float]]) -> dict[str, Any]:
    """Print the table; the figures under it, as data."""
    slow, straight, steps_s = found["link"], found["straight"], min(one["train"] for one in taken)
    print(f"{'seconds a round':<42}{'link':>9}{'straight':>10}{'the link adds':>15}")
    for name, one in slow.phases.items():
        other = straight.phases[name]
        print(f"{name:<42}{one:9.3f}{other:10.3f}{one - other:15.3f}")
    adds = slow.wall_s - straight.wall_s
    print(f"{'wall time':<42}{slow.wall_s:9.3f}{straight.wall_s:10.3f}{adds:15.3f}")
    # Training and validation are computing: what they differ by between two runs is noise, not the link.
    computing = ("training", "encoding", VALIDATION, *_ahead.PHASES[3:5])
    network_adds = sum(one - straight.phases[name] for name, one in slow.phases.items() if name not in computing)
    figures: dict[str, Any] = {
        "alone_s": steps_s,
        "training_of_the_round": {name: went.phases["training"] / went.wall_s for name, went in found.items()},
        "whole_round": {name: steps_s / went.wall_s for name, went in found.items()},
        "without_waiting_for_validation": {name: steps_s / (went.wall_s - waited(went)) for name, went in found.items()},
        "link_adds_s": adds,
        "link_adds_outside_computing_s": network_adds,
        "link_alone": steps_s / (steps_s + max(0.0, network_adds)),
        "kbit_per_s_of_training": (slow.up + slow.down) * 8 / 1000 / steps_s,
    }
    for name in slow.computed:
        print(f"{'processor: ' + name:<42}{slow.computed[name]:9.3f}{straight.computed[name]:10.3f}")
    if slow.computed:
        share = {name: went.computed[_ahead.COMPUTED[0]] / sum(went.computed.values()) for name, went in found.items()}
        print(f"of what the core computed, training and encoding: {share['link']:.1%}; without the link {share['straight']:.1%}")
    lone = _ahead.means(taken)
    print(f"\nthe same rounds with nothing of ours beside them, {len(taken)}: " + ", ".join(f"{name} {lone[name]:.3f} s" for name in lone))
    print(f"the fastest training of them: {steps_s:.3f} s; other programs only slow it")
    shares = {
        "training ÷ wall time": "training_of_the_round",
        "uncontended step time ÷ wall time": "whole_round",
        "uncontended step time ÷ (wall time − waiting for validation)": "without_waiting_for_validation",
    }
    for label, key in shares.items():
        print(f"{label}: {figures[key]['link']:.1%}; without the link {figures[key]['straight']:.1%}")
    print(f"the link adds {network_adds:.3f} s a round outside of computing: with nothing else to wait for {figures['link_alone']:.1%}")
    megabit = (slow.up + slow.down) * 8 / 1e6
    print(
        f"bytes to work: {slow.up:,.0f} up and {slow.down:,.0f} down a round, {megabit:.2f} Mbit for {steps_s:.2f} s of training"
        f" ({figures['kbit_per_s_of_training']:.0f} kbit a second of it)"
    )
    if slow.others_s:
        print(f"others take {slow.others_s:.3f} s from a receipt to the next announcement; {straight.others_s:.3f} s without the link")
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mbit", type=float, default=100, help="of the link, in each direction")
    parser.add_argument("--rtt-ms", type=float, default=50, help="round trip of the link")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--first", type=int, help=f"round that counts first [default: 2, with --delay {_ahead.SETTLING}]")
    parser.add_argument("--validators", type=int, default=1)
    parser.add_argument("--delay", type=int, choices=(0, 1), default=0)
    parser.add_argument(
        "--scored", type=int, help="tokens of each of the validators' measurements [default: the manifest's; with --delay 4096]"
    )
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    least = _ahead.SETTLING if asked.delay else 2
    first = max(asked.first or least, least)
    if len(cores) < 2 or asked.rounds < first + (3 if asked.delay else 1):
        parser.error("it takes two cores, and one round more than the first that counts, with --delay three")
    core, others = cores[-1], set(cores[:-1])
    link, load = Link(asked.mbit * 1e6, asked.rtt_ms / 1e3), os.getloadavg()[0]
    scored = asked.scored or (4_096 if asked.delay else None)
    scoring = ScoringConfig(unassigned_tokens=scored, validation_tokens=scored) if scored else None
    options = Options(
        rounds=asked.rounds, workers=1, validators=asked.validators, paid=False, delay=asked.delay, scoring=scoring, timing=PATIENT
    )
    found: dict[str, Went] = {}
    with tempfile.TemporaryDirectory(prefix="nostrain-") as root, contextlib.chdir(root):
        Path("alone").mkdir()
        taken = alone(Path(root, "alone"), core, asked.delay)
        os.sched_setaffinity(0, others)
        for name, through in (("link", link), ("straight", None)):
            print(f"{name}:")
            Path(name).mkdir()
            found[name] = trio.run(devnet_run, Path(root, name), options, through, core, first)
    print(f"\nload before {load:.1f}; {found['link'].rounds} rounds of each; {asked.mbit:g} Mbit/s, {asked.rtt_ms:g} ms")
    figures = show(found, taken)
    if asked.json:
        report = {"load": load, "alone": taken, "figures": figures, "runs": {name: vars(went) for name, went in found.items()}}
        asked.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
