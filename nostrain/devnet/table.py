"""The table at the end of a devnet: at most WIDTH columns wide, however many workers there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from nostrain.devnet.layout import LightningKind

WIDTH = 100
BESIDE = 4
"""Workers that fit beside the other columns; more get tables of their own, so many at a time:"""
A_TABLE = 7

NODES: Final[dict[LightningKind, str]] = {"simnet": "the simnet", "regtest": "the lightningds"}
LOSS = "devnet: held-out loss"
SCORES = "level and score of each delta; ✗ not used"


def show(report: dict[str, Any], console: Console) -> None:
    """Print the table, or tables."""
    rounds, workers = report["rounds"], worker_names(report)
    beside = workers if len(workers) <= BESIDE else []
    table = new_table(f"{LOSS}; {SCORES}" if beside else LOSS, ("round", "bits/byte", "ratio", "seconds"), ("digest", *beside))
    initial = report["initial_val_bpb"]
    table.add_row("0", number(initial, ".3f"), *("",) * (3 + len(beside)))
    for entry in rounds:
        table.add_row(
            str(entry["round"]),
            number(entry["val_bpb"], ".3f"),
            number(entry["ratio_fp32"], ".0f", "×"),
            f"{sum(entry['seconds'].values()):.1f}",
            digest_cell(entry["digests"]),
            *(worker_cell(entry["workers"].get(name)) for name in beside),
        )
    console.print(table)
    if not beside:
        for start in range(0, len(workers), A_TABLE):
            show_workers(rounds, workers[start : start + A_TABLE], console)


def show_money(report: dict[str, Any], console: Console) -> None:
    """What everybody had and has, in sat."""
    table = new_table(f"money, in sat (from {NODES[report['lightning']]})", ("name", "before", "after", "change", "held"), ())
    for name, one in sorted(report["balances"].items(), key=lambda item: (len(item[0]), item[0])):
        change = one["after_msat"] - one["before_msat"]
        cells = (sats(one["before_msat"]), sats(one["after_msat"]), f"{change / 1000:+,.0f}", sats(one["held_msat"]))
        table.add_row(name, *cells)
    console.print(table)


def show_cheaters(report: dict[str, Any], console: Console) -> None:
    """What every cheater earned and paid, and why it was not more."""
    table = Table(title=f"cheaters, in sat (from {NODES[report['lightning']]})")
    for column in ("name", "cheat", "earned", "paid"):
        table.add_column(column, justify="right" if column in ("earned", "paid") else "left", no_wrap=True)
    table.add_column("why", justify="left")
    for name, one in sorted(report["cheaters"].items(), key=lambda item: (len(item[0]), item[0])):
        table.add_row(name, one["cheat"], sats(one["earned_msat"]), sats(one["paid_msat"]), "; ".join(one["why"]))
    console.print(table)


def sats(msat: int) -> str:
    """An amount for people."""
    return f"{msat / 1000:,.0f}"


def show_workers(rounds: Sequence[dict[str, Any]], workers: Sequence[str], console: Console) -> None:
    """A table of some workers alone."""
    table = new_table(SCORES, ("round",), tuple(workers))
    for entry in rounds:
        table.add_row(str(entry["round"]), *(worker_cell(entry["workers"].get(name)) for name in workers))
    console.print(table)


def new_table(title: str, numbers: Sequence[str], texts: Sequence[str]) -> Table:
    """An empty table: columns of numbers, then columns of text."""
    table = Table(title=title)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    for column in texts:
        table.add_column(column, justify="left", no_wrap=True)
    return table


def worker_names(report: dict[str, Any]) -> list[str]:
    """Every worker that any round listed; worker-10 after worker-9."""
    names = {name for entry in report["rounds"] for name in entry["workers"]}
    return sorted(names, key=lambda name: (len(name), name))


def worker_cell(worker: dict[str, Any] | None) -> str:
    """Level and score, or that there is nothing."""
    if worker is None:
        return ""
    level = worker["level"] if worker["reason"] is None else "✗"
    return f"{level} {worker['score_ppm'] / 1e6:.2f}"


def digest_cell(digests: dict[str, str]) -> str:
    """The one digest and how many computed it; or how many digests there are."""
    different = sorted(set(digests.values()))
    if len(different) == 1:
        return f"{different[0][:8]} ×{len(digests)}"
    return f"{len(different)} DIFFER" if different else "-"


def number(value: float | None, form: str, unit: str = "") -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:{form}}{unit}"
