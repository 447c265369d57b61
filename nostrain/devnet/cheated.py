"""What cheating was worth: each cheater of a devnet with what it earned, what it paid and why, and whether that is as it must be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from nostrain.core.fraud.dispute_rows import Complaint
from nostrain.devnet.layout import Participant
from nostrain.devnet.observer import Observer
from nostrain.devnet.purse import shares_due

BAD_PAYER = "bad-payer"
BELOW = "below the first level"


def entries(report: dict[str, Any], observer: Observer, participants: Sequence[Participant]) -> dict[str, Any]:
    """The report's `cheaters`. What one has more or less in the end is the simnet's word; of that, `earned_msat` is what was attested."""
    found = {}
    for one in participants:
        if one.cheat is None:
            continue
        if one.role == "worker":
            earned = sum(entry["workers"][one.name]["reward_msat"] for entry in report["rounds"] if one.name in entry["workers"])
            paid, why = earned - change(report, one.name), refusals(report, one.name)
        elif one.role == "validator":
            earned, paid, why = shares_due(report).get(one.name, 0), 0, silence(observer, one)
        else:
            earned, paid, why = pocketed(report), 0, unmasked(report, observer)
        found[one.name] = {"cheat": one.cheat, "earned_msat": earned, "paid_msat": paid, "why": why}
    return found


def change(report: dict[str, Any], name: str) -> int:
    """By how much a balance changed, in the simnet."""
    one = report["balances"].get(name, {"before_msat": 0, "after_msat": 0})
    return int(one["after_msat"] - one["before_msat"])


def refusals(report: dict[str, Any], name: str) -> list[str]:
    """The reasons for which a worker's deltas were not used, and how often."""
    reasons = [entry["workers"][name]["reason"] or "used" for entry in report["rounds"] if name in entry["workers"]]
    told = Counter(BELOW if reason.endswith(BELOW) else reason for reason in reasons)
    return [f"{count} × {reason}" for reason, count in told.most_common()]


def silence(observer: Observer, validator: Participant) -> list[str]:
    """In how many rounds a validator left those alone that it had acknowledged."""
    rounds = [watched.round for watched in observer.rounds.values() if validator.pubkey in watched.round.acknowledgements]
    silent = sum(validator.pubkey not in round_.attested for round_ in rounds)
    return [f"did not attest in {silent} of {len(rounds)} rounds that it acknowledged: the others' attestations released what was due"]


def pocketed(report: dict[str, Any]) -> int:
    """Fees of those that bought a ticket and then did not commit: what a payer has of cheating, all of it from its last round."""
    workers = {name for entry in report["rounds"] for name in entry["workers"]}
    return sum(due(report, name) - change(report, name) for name in workers)


def due(report: dict[str, Any], name: str) -> int:
    """Rewards less the fees of the rounds in which a worker committed."""
    mine = [entry["workers"][name] for entry in report["rounds"] if name in entry["workers"]]
    return sum(worker["reward_msat"] - worker["fee_msat"] for worker in mine)


def unmasked(report: dict[str, Any], observer: Observer) -> list[str]:
    """How many saw through a payer, as they say themselves; what was published about it; and who believes that, having checked it."""
    counters = [daemon["counters"] for daemon in report["daemons"].values() if daemon is not None]
    refused = sum(counted.get("offers_refused", 0) > 0 for counted in counters)
    proved = sum(counted.get("disputes_proven", 0) > 0 for counted in counters)
    claims = [row for row in observer.state.rows.values() if isinstance(row, Complaint)]
    against = sum(observer.run is not None and row.dispute.accused == observer.run.coordinator for row in claims)
    return [
        f"{refused} workers refused its offers as fraud before they committed to anything, and buy no more of its tickets",
        f"{against} disputes are published against it; {proved} participants hold them for proven",
    ]


def problems(report: dict[str, Any]) -> list[str]:
    """Cheaters that gained by it, honest workers that were not paid. Nothing in a run without cheaters.

    A payer that cheats does keep one fee of each worker: of the round in which it was found out.
    """
    cheaters = report["cheaters"]
    if not cheaters:
        return []
    found = [
        f"{name} ({one['cheat']}) earned {one['earned_msat']} msat for {one['paid_msat']} of fees"
        for name, one in cheaters.items()
        if one["cheat"] != BAD_PAYER and one["earned_msat"] > one["paid_msat"]
    ]
    rounds = report["rounds"]
    bad_payer = any(one["cheat"] == BAD_PAYER for one in cheaters.values())
    if bad_payer and rounds:
        last, rounds = rounds[-1], rounds[:-1]
        taken_in = sorted(name for name, worker in last["workers"].items() if worker["fee_msat"])
        found += [f"{name} committed in round {last['round']}, in which the payer cheats" for name in taken_in]
    for entry in rounds:
        honest = {name: worker["reward_msat"] for name, worker in entry["workers"].items() if name not in cheaters}
        if not any(honest.values()):
            found.append(f"no honest worker was paid in round {entry['round']}")
    workers = {name for entry in rounds for name in entry["workers"]} - set(cheaters)
    return found + [f"{name} is honest and was not paid" for name in sorted(workers) if change(report, name) <= 0]
