"""`nostrain-ctl earnings`: the rounds that are kept and the sums of the ledger in sat, or the ledger itself as CSV in msat."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from nostrain.ctl.client import call
from nostrain.ctl.money import sat, table
from nostrain.ctl.options import show_json
from nostrain.ctl.render import printable
from nostrain.protocol.ledger import LedgerEntry
from nostrain.wire.control import Earnings, Request, RoundEarnings

MAX_TEXT: Final = 60
COLUMNS: Final = ("seq", "time", "run", "round", "kind", "amount_msat", "payment_hash", "party", "sum_msat")
"""`amount_msat` is what the entry did to our balance, `sum_msat` what it is about: of money that came back the first is 0."""


def show_earnings(control: Path, *, as_json: bool, as_csv: bool) -> None:
    """Ask and print. Raises click.ClickException."""
    if as_csv:
        click.echo(csv_line(COLUMNS), nl=False)
        for seq, entry in ledger(control):
            click.echo(csv_line(csv_fields(seq, entry)), nl=False)
        return
    found = call(control, Request("earnings")).earnings
    if found is not None and as_json:
        show_json(found)
    elif found is not None:
        click.echo(earnings_text(found))


def ledger(control: Path) -> Iterator[tuple[int, LedgerEntry]]:
    """Every entry, a page at a time. Raises click.ClickException."""
    start, more = 1, True
    while more:
        page = call(control, Request("ledger", start)).ledger
        if page is None:
            raise click.ClickException("the daemon's answer has no ledger")
        yield from page.entries
        more = page.more and bool(page.entries)
        start = page.entries[-1][0] + 1 if more else start


def csv_fields(seq: int, entry: LedgerEntry) -> tuple[str, ...]:
    """One line of the CSV; the time is UTC, as ISO 8601 has it."""
    time = datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    amounts = (str(entry.change_msat), entry.payment_hash, entry.party, str(entry.sum_msat))
    return (str(seq), time, entry.run, str(entry.round), entry.kind, *amounts)


def csv_line(fields: tuple[str, ...]) -> str:
    """The fields as RFC 4180 has them."""
    text = io.StringIO()
    csv.writer(text).writerow(fields)
    return text.getvalue()


def earnings_text(earnings: Earnings) -> str:
    """A row for each round that is kept and a row of their totals; then what the ledger has, which is kept for ever."""
    columns = ("round", "levels", "reward", "fee", "share", "net", "locked", "state")
    rows = [row(str(entry.round), entry) for entry in earnings.rounds]
    total = RoundEarnings(
        round=0,
        announcement=earnings.run,
        levels=sum(entry.levels for entry in earnings.rounds),
        reward_msat=sum(entry.reward_msat for entry in earnings.rounds),
        fee_msat=sum(entry.fee_msat for entry in earnings.rounds),
        share_msat=sum(entry.share_msat for entry in earnings.rounds),
        locked_msat=sum(entry.locked_msat for entry in earnings.rounds),
        state=f"{len(earnings.rounds)} rounds",
    )
    rows.append(row("these", total))
    lines = [printable(f"run {earnings.name} ({earnings.run[:16]}), {earnings.rounds_closed} rounds closed; amounts in sat")]
    lines += table(columns, rows, texts=0)
    first = min((entry.round for entry in earnings.rounds), default=1)
    if first > 1:
        lines.append(f"rounds before {first} are not shown: we took no part in them, or the journal does not keep them any more")
    return "\n".join([*lines, "", *totals_text(earnings)])


def totals_text(earnings: Earnings) -> list[str]:
    """A row for each run and kind of entry, and their sum."""
    rows: list[tuple[str, ...]] = [
        (total.run[:16], str(total.entries), sat(total.sum_msat), sat(total.change_msat), total.kind) for total in earnings.totals
    ]
    net = sum(total.change_msat for total in earnings.totals)
    rows.append(("all runs", str(sum(total.entries for total in earnings.totals)), "", sat(net), ""))
    return ["the ledger, from which nothing is ever dropped:", *table(("run", "entries", "sum", "change", "kind"), rows, texts=1)]


def row(label: str, entry: RoundEarnings) -> tuple[str, ...]:
    """One line of the table of earnings."""
    net = entry.reward_msat + entry.fee_msat + entry.share_msat
    amounts = (entry.reward_msat, entry.fee_msat, entry.share_msat, net, entry.locked_msat)
    return (label, str(entry.levels), *map(sat, amounts), entry.state[:MAX_TEXT])
