"""`nostrain-ctl wallet`: tables in sat, of what the daemon answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from nostrain.ctl.client import call
from nostrain.ctl.render import printable
from nostrain.wire.control import Request, Wallet

NOTHING: Final = "-"


def show_wallet(control: Path) -> None:
    """Ask and print. Raises click.ClickException."""
    found = call(control, Request("wallet")).wallet
    if found is not None:
        click.echo(wallet_text(found))


def wallet_text(wallet: Wallet) -> str:
    """A line for the node, a row for each channel, a row of sums."""
    columns = ("peer", "state", "spendable", "receivable", "held by us", "held for us", "htlcs", "blocks to expiry")
    rows = [
        (
            channel.peer_id[:16],
            channel.state if channel.connected else f"{channel.state} (away)",
            sat(channel.spendable_msat),
            sat(channel.receivable_msat),
            sat(channel.held_msat),
            sat(channel.incoming_msat),
            f"{channel.htlcs} of {channel.slots} each way",
            NOTHING if channel.blocks_left is None else str(channel.blocks_left),
        )
        for channel in wallet.channels
    ]
    every = wallet.channels
    left = [channel.blocks_left for channel in every if channel.blocks_left is not None]
    rows.append(
        (
            "sum",
            f"{len(every)} channels",
            sat(sum(channel.spendable_msat for channel in every)),
            sat(sum(channel.receivable_msat for channel in every)),
            sat(sum(channel.held_msat for channel in every)),
            sat(sum(channel.incoming_msat for channel in every)),
            str(sum(channel.htlcs for channel in every)),
            str(min(left)) if left else NOTHING,
        )
    )
    head = f"node {wallet.node_id[:16]} on {wallet.network}, block {wallet.height}; amounts in sat"
    return "\n".join([printable(head), *table(columns, rows, texts=2)])


def sat(msat: int) -> str:
    """An amount to the last millisatoshi, without needless zeros."""
    whole, rest = divmod(abs(msat), 1000)
    fraction = f".{rest:03d}".rstrip("0") if rest else ""
    return f"{'-' if msat < 0 else ''}{whole:,}{fraction}"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> list[str]:
    """Lines of aligned columns: the first `texts` and the last one to the left, the others to the right."""
    lines = [tuple(columns), *(tuple(map(printable, cells)) for cells in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    last = len(columns) - 1
    return [
        "  ".join(
            cell.ljust(width) if index < texts or index == last else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
