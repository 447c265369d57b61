"""`nostrain-ctl wallet`: tables in sat, of what the daemon answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from nostrain.ctl.client import call
from nostrain.ctl.options import show_json
from nostrain.ctl.render import printable
from nostrain.wire.control import ChannelPlan, Request, Wallet, WalletChannel

NOTHING: Final = "-"


def show_wallet(control: Path, *, as_json: bool = False) -> None:
    """Ask and print. Raises click.ClickException."""
    found = call(control, Request("wallet")).wallet
    if found is not None and as_json:
        show_json(found)
    elif found is not None:
        click.echo(wallet_text(found))


def show_plan(control: Path, workers: int, rounds: int, *, as_json: bool = False) -> None:
    """Ask and print. Raises click.ClickException."""
    found = call(control, Request("plan", workers=workers, rounds=rounds)).plan
    if found is not None and as_json:
        show_json(found)
    elif found is not None:
        click.echo(plan_text(found))


def wallet_text(wallet: Wallet) -> str:
    """A line for the node, a row for each channel, a row of sums."""
    columns = (
        "peer",
        "participant",
        "state",
        "spendable",
        "receivable",
        "held by us",
        "held for us",
        "htlcs out",
        "in",
        "blocks to expiry",
    )
    rows = [
        (
            channel.peer_id[:16],
            participant(channel),
            channel.state if channel.connected else f"{channel.state} (away)",
            sat(channel.spendable_msat),
            sat(channel.receivable_msat),
            sat(channel.held_msat),
            sat(channel.incoming_msat),
            f"{channel.htlcs_out} of {channel.slots}",
            f"{channel.htlcs_in} of {channel.slots}",
            NOTHING if channel.blocks_left is None else str(channel.blocks_left),
        )
        for channel in wallet.channels
    ]
    every = wallet.channels
    left = [channel.blocks_left for channel in every if channel.blocks_left is not None]
    rows.append(
        (
            "sum",
            NOTHING,
            f"{len(every)} channels",
            sat(sum(channel.spendable_msat for channel in every)),
            sat(sum(channel.receivable_msat for channel in every)),
            sat(sum(channel.held_msat for channel in every)),
            sat(sum(channel.incoming_msat for channel in every)),
            str(sum(channel.htlcs_out for channel in every)),
            str(sum(channel.htlcs_in for channel in every)),
            str(min(left)) if left else NOTHING,
        )
    )
    head = f"node {wallet.node_id[:16]} on {wallet.network}, block {wallet.height}; amounts in sat"
    return "\n".join([printable(head), *table(columns, rows, texts=3), *policy_lines(wallet)])


def policy_lines(wallet: Wallet) -> list[str]:
    """What the daemon does with the node's money by itself, if anything."""
    lines, last = [], wallet.withdrawal
    if wallet.coins_msat is not None:
        lines.append(f"on-chain: {sat(wallet.coins_msat)} can be spent")
    if wallet.opened_msat:
        lines.append(f"channels opened by policy: {sat(wallet.opened_msat)} in all")
    if last is not None:
        lines.append(f"withdrawal {last.number} to {last.address}: {sat(last.amount_msat)}, {last.state} {last.txid or ''}".rstrip())
    return [printable(line) for line in lines]


def participant(channel: WalletChannel) -> str:
    """Name and key of the participant at the other end, as far as they are known."""
    if channel.owner is None:
        return NOTHING
    return f"{channel.owner_name} {channel.owner[:8]}" if channel.owner_name else channel.owner[:16]


def plan_text(plan: ChannelPlan) -> str:
    """What to open, what it is made of, what it lasts for, and what is there already."""
    a_round = plan.level_msat * plan.levels
    tickets = 100 * plan.fee_msat // a_round if a_round else 0
    lines = [
        f"for {plan.workers} workers that reach every level of {plan.rounds} rounds; amounts in sat",
        f"a round:   {sat(a_round)} a worker, {sat(a_round * plan.workers)} in all, in {plan.levels} HTLCs each",
        f"a channel: {sat(plan.capacity_msat)} to each worker, of which {sat(plan.push_msat)} are pushed to it",
        f"           ({sat(plan.sent_msat)} to send, {sat(plan.reserve_msat)} reserve on each side, the rest for the commitment transaction)",
        f"in all:    {sat(plan.capacity_msat * plan.workers)}",
        f"slots:     {plan.levels} of {plan.slots} HTLCs a round on a worker's own channel, for {plan.slots // plan.levels} rounds at once;",
        f"           or {plan.shared_channels} channels that all share, for a round",
        f"tickets:   {sat(plan.fee_msat)} a worker and round come back, {tickets} % of a full round: a channel loses {sat(a_round - plan.fee_msat)}"
        " a round at most,",
        "           and has to be refilled (or the worker spends through it) after the rounds above",
    ]
    if plan.spendable_msat is not None:
        lines.append(
            f"now:       {sat(plan.spendable_msat)} can be sent; a whole round fits to {plan.peers_ready} peers of {plan.workers} needed"
        )
    return "\n".join(lines)


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
