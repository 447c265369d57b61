"""How answers look in a terminal."""

from __future__ import annotations

import click

from nostrain.wire.control import Status
from nostrain.wire.nip19 import npub


def show_status(status: Status) -> None:
    """One fact a line."""
    run = status.run
    lines = [
        ("daemon", f"{status.name}, {', '.join(status.roles)}, version {status.version}"),
        ("key", npub(status.pubkey)),
        ("relays", ", ".join(status.relays_connected) or "none connected"),
    ]
    if status.blobs_url is not None:
        lines.append(("blobs", status.blobs_url))
    if run is None:
        lines.append(("run", "none found yet"))
    else:
        lines.append(("run", f"{run.name} {run.id[:16]}, round {run.round} of {run.rounds} closed, {run.phase}"))
        lines += [("halted", run.halted)] if run.halted else []
    lines += [("state", f"{status.state_id[:16]} ({status.replica})")] if status.state_id else []
    lines += [("submission", status.submission)] if status.submission else []
    lines += [("duty", status.duty)] if status.duty else []
    lines.append(("waiting for", ", ".join(effect.rpartition("#")[2] for effect in status.outstanding) or "the others"))
    for label, text in lines:
        click.echo(f"{label:>12}  {text}")
    for name, count in sorted(status.counters.items()):
        click.echo(f"{'':>12}  {name}: {count}")
