"""How answers look in a terminal."""

from __future__ import annotations

import click

from nostrain.ctl.options import show_json
from nostrain.protocol.footprint import as_memory
from nostrain.wire.control import CatchingUp, MemoryStatus, Status
from nostrain.wire.nip19 import npub


def show_status(status: Status, *, as_json: bool = False) -> None:
    """One fact a line; names that strangers chose are kept from commanding the terminal. JSON escapes them."""
    if as_json:
        show_json(status)
        return
    run = status.run
    lines = [
        ("daemon", f"{status.name}, {', '.join(status.roles)}, version {status.version}"),
        ("key", npub(status.pubkey)),
        ("relays", ", ".join(status.relays_connected) or "none connected"),
    ]
    if status.blobs_url is not None:
        lines.append(("blobs", status.blobs_url))
    if status.lightning is not None:
        reason = status.lightning.reason
        lines.append(("lightning", status.lightning.state if reason is None else f"{status.lightning.state}: {reason}"))
        lines += [("warning", text) for text in status.lightning.warnings]
    if run is None:
        lines.append(("run", "none found yet" if set(status.roles) != {"blobs"} else "none: this daemon only serves blobs"))
    else:
        lines.append(("run", f"{run.name} {run.id[:16]}, round {run.round} of {run.rounds} closed, {run.phase}"))
        lines += [("halted", run.halted)] if run.halted else []
    if status.memory is not None:
        lines.append(("memory", memory(status.memory, refused=status.counters.get("runs_too_large", 0) if run is None else 0)))
    lines += [("state", f"{status.state_id[:16]} ({status.replica})")] if status.state_id else []
    if status.catching_up is not None:
        lines.append(("catching up", catching_up(status.catching_up)))
    lines += [("submission", status.submission)] if status.submission else []
    lines += [("duty", status.duty)] if status.duty else []
    if run is not None:
        lines.append(("waiting for", ", ".join(effect.rpartition("#")[2] for effect in status.outstanding) or "the others"))
    if status.online:
        lines.append(("online", ", ".join(f"{one.name} ({one.doing or one.role})" for one in status.online)))
    lines += [("", f"{name}: {count}") for name, count in sorted(status.counters.items())]
    for label, text in lines:
        click.echo(f"{label:>12}  {printable(text)}")


def memory(found: MemoryStatus, *, refused: int) -> str:
    """What the engine needs and has; `refused` runs were too large for it."""
    has = as_memory(found.has) if found.has else "an unknown amount: set engine.memory_mb"
    if found.least is None or found.most is None:
        return f"has {has}" + (f"; {refused} runs need more and were not joined, see the log" if refused else "")
    return f"needs {as_memory(found.least)} with one window at a time, {as_memory(found.most)} for whole batches; has {has}"


def catching_up(found: CatchingUp) -> str:
    """How far a copy of the state has come, and how it goes on."""
    how = "" if found.checkpoint is None else f"; taking the checkpoint of round {found.checkpoint}"
    return f"{found.round} of {found.of} rounds{how}"


def printable(text: str) -> str:
    """`text` without control characters."""
    return "".join(char if char.isprintable() else "?" for char in text)
