"""Where a worker's time goes in a delayed run: from the begin of one training to the begin of the next, as its engine's jobs and the relay show it."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from nostrain.devnet.observer import Watched

PHASES = (
    "training",
    "encoding",
    "around the job (frames)",
    "waiting for the round before (its validators)",
    "our outer step",
    "waiting for the announcement",
    "our daemon, the rest",
)
OTHERS = "receipt to announcement: what others do meanwhile"
COMPUTED = ("the engine in training and encoding", "the engine otherwise", "the daemon")
"""Whose processor time a round is."""
SETTLING = 3
"""The first round that counts, unless more are to be left out: the first two are trained from one state, and the engine warms up."""


@dataclass(frozen=True)
class Job:
    """One job of the worker's engine, when it had the engine to itself; processor seconds of engine and daemon up to its end."""

    owner: str
    name: str
    start: float
    end: float
    train_s: float
    encode_s: float
    engine_cpu: float
    daemon_cpu: float


def jobs(lines: list[dict[str, Any]]) -> list[Job]:
    """The engine's jobs one after the other: a job waits for the one before."""
    found: list[Job] = []
    for line in sorted((line for line in lines if line["kind"] == "Compute"), key=lambda line: float(line["end"])):
        start = max(line["begin"], found[-1].end) if found else line["begin"]
        took = line.get("train_ms", 0) / 1000, line.get("encode_ms", 0) / 1000
        found.append(Job(line["owner"], line["name"], start, line["end"], *took, line["engine_cpu"], line["daemon_cpu"]))
    return found


def phases(number: int, done: list[Job], rounds: dict[int, Watched], zero: float) -> dict[str, float]:
    """Seconds from the begin of the training for round `number` to that for the next one, which is trained from this round's state."""
    one, following = (next(job for job in done if job.owner == f"ahead/{at:05d}") for at in (number, number + 1))
    closed, announced = rounds[number - 1].seen["closed"] + zero, rounds[number].seen["announced"] + zero
    steps = [job for job in done if job.name.startswith("aggregate:") and one.end <= job.start < following.start]
    outer = sum(job.end - job.start for job in steps)
    late = max(0.0, min(closed, following.start) - one.end)
    there = max(one.end, closed, *(job.end for job in steps))
    silent = max(0.0, min(announced, following.start) - there)
    rest = following.start - one.end - late - outer - silent
    around = one.end - one.start - one.train_s - one.encode_s
    return dict(zip(PHASES, (one.train_s, one.encode_s, around, late, outer, silent, rest), strict=True))


def computed(number: int, done: list[Job]) -> dict[str, float]:
    """Processor seconds of the same time, as in COMPUTED."""
    at, following = (next(place for place, job in enumerate(done) if job.owner == f"ahead/{one:05d}") for one in (number, number + 1))
    before, trained, last = done[at - 1], done[at], done[following - 1]
    own = trained.engine_cpu - before.engine_cpu
    return dict(zip(COMPUTED, (own, last.engine_cpu - trained.engine_cpu, last.daemon_cpu - before.daemon_cpu), strict=True))


def means(parts: list[dict[str, float]]) -> dict[str, float]:
    """Of each entry."""
    return {name: statistics.mean(part[name] for part in parts) for name in parts[0]}


@dataclass(frozen=True)
class Found:
    """Mean seconds of the rounds that count. `others`: from a receipt to the next announcement."""

    phases: dict[str, float]
    computed: dict[str, float]
    others: float
    rounds: int


def found(lines: list[dict[str, Any]], rounds: dict[int, Watched], zero: float, first: int = SETTLING) -> Found:
    """Of the rounds in which everything is as it stays: from `first` on, but for the last two."""
    done, measured = jobs(lines), range(first, max(rounds) - 1)
    others = [rounds[at + 1].seen["announced"] - rounds[at].seen["committed"] for at in measured]
    parts = [phases(number, done, rounds, zero) for number in measured]
    return Found(means(parts), means([computed(number, done) for number in measured]), statistics.mean(others), len(parts))
