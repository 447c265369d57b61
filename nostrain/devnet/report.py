"""The report of a devnet run: the data that `--json` writes and that `devnet.table` shows, and what is wrong with the run."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from statistics import median
from typing import Any, cast

import msgspec

from nostrain.core.escrow.split import shares
from nostrain.core.rounds.epoch import paid_levels
from nostrain.core.rounds.scoring import attested_levels, pinned, standings
from nostrain.core.rows import Run
from nostrain.devnet.layout import Participant
from nostrain.devnet.observer import PHASES, Observer, Watched
from nostrain.protocol.messages import Confirmation
from nostrain.protocol.tensors import parameter_count

SCHEMA = 1


def bits_per_byte(confirmations: list[Confirmation], tokens_per_byte: float) -> float | None:
    """Median over the validators of the loss on the held-out shard, in bits a byte of its text."""
    losses = [c.validation_nanonats for c in confirmations if c.validation_nanonats is not None]
    return median(losses) / 1e9 / math.log(2) * tokens_per_byte if losses else None


def build(observer: Observer, participants: list[Participant], extra: dict[str, Any]) -> dict[str, Any]:
    """The report as plain data. Everything but `extra` follows from signed events; a paid run's `balances` are its nodes', in `extra`.

    In a run that is not paid, `paid` is false, and `reward_msat`, `fee_msat`, `share_msat` and `balances` are zero.
    """
    rounds = [one_round(observer, watched) for _, watched in sorted(observer.rounds.items())]
    return {
        "schema": SCHEMA,
        "paid": observer.run is not None and observer.run.manifest.settlement.mode == "hold",
        "initial_val_bpb": bits_per_byte(list(observer.initial.values()), observer.tokens_per_byte),
        "final_val_bpb": rounds[-1]["val_bpb"] if rounds else None,
        "utilization": utilization(observer),
        "rounds": rounds,
        "balances": {one.name: {"before_msat": 0, "after_msat": 0, "held_msat": 0, "routing_msat": 0} for one in participants},
        "faults": observer.faults,
        "events": observer.events,
        **extra,
    }


def one_round(observer: Observer, watched: Watched) -> dict[str, Any]:
    """One entry of `rounds`."""
    run, round_ = cast("Run", observer.run), watched.round
    sizes = [reveal.blob.size for reveal in round_.reveals.values()]
    parameters = parameter_count(run.manifest.model)
    confirmations = sorted(watched.confirmations.items(), key=lambda item: observer.name(item[0]))
    return {
        "round": watched.number,
        "val_bpb": bits_per_byte(list(watched.confirmations.values()), observer.tokens_per_byte),
        "ratio_fp32": 4 * parameters * len(sizes) / sum(sizes) if sizes else None,
        "bytes": sum(sizes),
        "fee_msat": run.manifest.settlement.fee_msat if run.manifest.settlement.mode == "hold" else 0,
        "seconds": seconds(watched),
        "digests": {observer.name(key): confirmation.root for key, confirmation in confirmations},
        "state_ids": {observer.name(key): confirmation.state_id for key, confirmation in confirmations},
        "workers": workers(observer, watched),
        "validators": validators(observer, watched),
    }


def seconds(watched: Watched) -> dict[str, float]:
    """Seconds in each phase, as the observer saw the events arrive: from the end of the phase before to its own."""
    seen, phases = watched.seen, [("announced", "open"), *PHASES.items()]
    pairs = [(start, end, name) for (start, _), (end, name) in itertools.pairwise(phases) if start in seen and end in seen]
    return {name: round(max(seen[end] - seen[start], 0.0), 3) for start, end, name in pairs}


def workers(observer: Observer, watched: Watched) -> dict[str, Any]:
    """Score, level and reason of every listed worker, from the verdicts and attestations. An epoch's rewards are those of its first round."""
    run, round_ = cast("Run", observer.run), watched.round
    verdicts = [verdict for _, verdict in round_.verdicts.values()]
    scored = standings(verdicts, pinned(round_), run.manifest.scoring, {}) if verdicts else {}
    levels, paid, settlement = attested_levels(round_, run.manifest.threshold), paid_levels(run, round_), run.manifest.settlement
    refused = {item.worker: item.reason for item in round_.result[1].refused} if round_.result else {}
    return {
        observer.name(worker): {
            "score_ppm": scored[worker].score_ppm if worker in scored else 0,
            "level": levels.get(worker, 0),
            "reward_msat": run.manifest.level_msat * paid.get(worker, 0),
            "fee_msat": settlement.fee_msat if settlement.mode == "hold" and worker in pinned(round_) else 0,
            "reason": refused.get(worker),
        }
        for worker in round_.announcement.workers
    }


def validators(observer: Observer, watched: Watched) -> dict[str, Any]:
    """What every listed validator has of the round's fees."""
    earned = shares(cast("Run", observer.run), watched.round)
    return {observer.name(entry.pubkey): {"share_msat": earned.get(entry.pubkey, 0)} for entry in watched.round.announcement.validators}


def utilization(observer: Observer) -> float:
    """Share of the time from the first announcement to the last confirmation in which engines trained or scored."""
    watched = [one for _, one in sorted(observer.rounds.items())]
    if not watched:
        return 0.0
    begin, end = watched[0].seen.get("announced", 0.0), max(max(one.seen.values()) for one in watched)
    busy = sum(seconds(one).get("train", 0.0) + seconds(one).get("validate", 0.0) for one in watched)
    return min(busy / (end - begin), 1.0) if end > begin else 0.0


def agreement(observer: Observer) -> list[str]:
    """What keeps the run from being a success: rounds missing, digests missing, digests that differ."""
    problems = []
    run = observer.run
    if run is None:
        return ["no run was published"]
    if run.halted:
        problems.append(f"the run was halted: {run.halted}")
    for number in range(1, run.manifest.rounds + 1):
        watched = observer.rounds.get(number)
        if watched is None or watched.round.result is None:
            problems.append(f"round {number} was not closed")
            continue
        result = watched.round.result[1]
        missing = observer.expected(watched.round) - set(watched.confirmations)
        if missing:
            problems.append(f"round {number}: no confirmation by {', '.join(sorted(map(observer.name, missing)))}")
        wrong = sorted(
            observer.name(key) for key, c in watched.confirmations.items() if (c.state_id, c.root) != (result.state_id, result.root)
        )
        if wrong:
            problems.append(f"round {number}: another state was computed by {', '.join(wrong)}")
    return problems


def write(report: dict[str, Any], path: Path) -> None:
    """Write the report as JSON, readable."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
