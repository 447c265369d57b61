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


@dataclass(frozen=True)
class Job:
    """One job of the worker's engine, when it had the engine to itself."""

    owner: str
    name: str
    start: float
    end: float
    train_s: float
    encode_s: float


def jobs(lines: list[dict[str, Any]]) -> list[Job]:
    """The engine's jobs one after the other: a job waits for the one before."""
    found: list[Job] = []
    for line in sorted((line for line in lines if line["kind"] == "Compute"), key=lambda line: float(line["end"])):
        start = max(line["begin"], found[-1].end) if found else line["begin"]
        took = line.get("train_ms", 0) / 1000, line.get("encode_ms", 0) / 1000
        found.append(Job(line["owner"], line["name"], start, line["end"], *took))
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


def mean_phases(lines: list[dict[str, Any]], rounds: dict[int, Watched], zero: float) -> tuple[dict[str, float], float, int]:
    """Means of all rounds in which everything is as it stays: not the first two, nor the last two; what others take; how many rounds."""
    done, measured = jobs(lines), range(3, max(rounds) - 1)
    parts = [phases(number, done, rounds, zero) for number in measured]
    others = [rounds[at + 1].seen["announced"] - rounds[at].seen["committed"] for at in measured]
    return {name: statistics.mean(part[name] for part in parts) for name in PHASES}, statistics.mean(others), len(parts)
