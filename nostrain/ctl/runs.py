"""`nostrain-ctl run list` and `run show`: which runs there are, from relays alone. Names are strangers' words, kept from commanding the terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from nostrain.ctl.client import call
from nostrain.ctl.options import show_json
from nostrain.ctl.render import printable
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.protocol.discovery import RunAddress
from nostrain.protocol.footprint import as_memory, evaluation_in_words, evaluation_needs, needed_bytes, training_in_words
from nostrain.protocol.manifest import SAT, RunManifest
from nostrain.protocol.tensors import parameter_count
from nostrain.units import UnixTime
from nostrain.wire.control import Request
from nostrain.wire.nip19 import npub
from nostrain.wire.nip19_run import nevent, parse_run_untrusted
from nostrain.wire.relay_url import relay_url_untrusted

if TYPE_CHECKING:
    from nostrain.devnet.finder import FoundRun

UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def list_runs(relays: Sequence[str], control: Path, *, as_json: bool) -> None:
    """A block of lines for each run. Ends the command with one line when there is no relay to ask, or none can be reached."""
    import trio

    from nostrain.devnet.finder import find_runs

    try:
        found = trio.run(find_runs, asked(relays, control), UnixTime(int(time.time())))
    except Unavailable as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        show_json([as_object(run) for run in found])
        return
    for run in found:
        click.echo(f"{printable(run.manifest.name)}  {run.id}")
        for text in summary(run):
            click.echo(f"    {printable(text)}")
    click.echo(f"{len(found)} runs" if len(found) != 1 else "1 run", err=True)


def show_run(run: str, relays: Sequence[str], control: Path, listen_s: float, *, as_json: bool) -> None:
    """Everything that relays say of one run. Ends the command with one line when it is not found."""
    import trio

    from nostrain.devnet.finder import look_at

    try:
        address = parse_run_untrusted(run)
    except RemoteProtocolError as error:
        raise click.ClickException(str(error)) from None
    ours = asked(relays, control) if relays or not address.relays else ()
    found = trio.run(look_at, ours, address, listen_s)
    if found is None:
        hint = "; the relays that it names are asked if they are public, others with --relay" if address.relays else ""
        raise click.ClickException(f"no relay that was asked has the run {address.run}{hint}")
    if as_json:
        show_json(as_object(found))
        return
    for label, text in details(found):
        click.echo(f"{label:>12}  {printable(text)}")


def asked(relays: Sequence[str], control: Path) -> tuple[str, ...]:
    """The relays of the command line, else those that our daemon is connected to."""
    if relays:
        try:
            return tuple(dict.fromkeys(relay_url_untrusted(url) for url in relays))
        except RemoteProtocolError as error:
            raise click.ClickException(f"{error}. Write wss://host, or ws://host:port") from None
    try:
        status = call(control, Request("status")).status
    except click.ClickException as error:
        raise click.ClickException(f"{error.message} Or name relays: --relay wss://host") from None
    if status is None or not status.relays_connected:
        raise click.ClickException("the daemon is connected to no relay; name one with --relay")
    return status.relays_connected


def as_object(run: FoundRun) -> dict[str, Any]:
    """For programs: everything, and the model's size."""
    shown: dict[str, Any] = msgspec.to_builtins(run)
    return shown | {"parameters": parameter_count(run.manifest.model), "nevent": nevent(address_of(run))}


def address_of(run: FoundRun) -> RunAddress:
    """How the run is handed on."""
    return RunAddress(run.id, run.coordinator, run.manifest.relays or (run.pointer.relays if run.pointer else ()))


def size(count: int) -> str:
    """A number of parameters as people say it."""
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if count >= unit:
            return f"{count / unit:.3g}{letter}"
    return str(count)


def ago(seconds: int) -> str:
    """A time that has passed; dates are their author's word."""
    if seconds < 0:
        return "in the future, by its coordinator's clock"
    unit, letter = next(((unit, letter) for unit, letter in UNITS if seconds >= unit), (1, "s"))
    return f"{seconds // unit} {letter} ago"


def pay(manifest: RunManifest) -> str:
    """What the run pays, and what taking part costs."""
    money = manifest.settlement
    if money.mode == "none":
        return "unpaid"
    epoch = "a round" if money.epoch_rounds == 1 else f"every {money.epoch_rounds} rounds"
    fee = f"{money.fee_msat // SAT:,} sat" if money.fee_msat else "no fee"
    return f"pays {money.pool_msat // SAT:,} sat {epoch} to at most {money.slots} workers, ticket {fee}, on {money.network}"


def stands(run: FoundRun) -> str:
    """Rounds and state."""
    state = run.pointer.state if run.pointer else "finished" if run.round >= run.manifest.rounds else "unknown"
    return f"round {run.round} of {run.manifest.rounds} closed, {state}; active {ago(int(time.time()) - run.active)}"


def summary(run: FoundRun) -> list[str]:
    """A run in a few lines."""
    people = f"; {run.pointer.workers} workers and {run.pointer.validators} validators enrolled" if run.pointer else ""
    lines = [f"{size(parameter_count(run.manifest.model))} parameters; {pay(run.manifest)}", stands(run) + people]
    (train, _), (evaluate, _) = needed_bytes(run.manifest.model, run.manifest.training), evaluation_needs(run.manifest)
    lines.append(f"memory: a worker needs {as_memory(train)} at least, a validator {as_memory(evaluate)}")
    lines.append(f"coordinator {npub(run.coordinator)}")
    return [*lines, f"relays {', '.join(address_of(run).relays or run.found_on)}"]


def details(run: FoundRun) -> list[tuple[str, str]]:
    """A run, one fact a line."""
    manifest = run.manifest
    training, model, timing = manifest.training, manifest.model, manifest.timing
    tokens = training.inner_steps * training.batch_size * training.sequence_length
    longest = timing.commit_s + timing.acknowledge_s + timing.reveal_s + timing.verdict_s + timing.attest_s + 2 * timing.grace_s
    speed = f"; they train {run.tokens_per_s:,} tokens a second, they say" if run.tokens_per_s else ""
    lines = [
        ("run", f"{manifest.name} {run.id}"),
        ("", nevent(address_of(run))),
        ("coordinator", npub(run.coordinator)),
        (
            "model",
            f"{model.architecture}, {size(parameter_count(manifest.model))} parameters: {model.num_hidden_layers} layers of {model.hidden_size}",
        ),
        ("training", f"{training.inner_steps} steps, {tokens:,} tokens a round and worker; a round lasts {longest} s at most"),
        ("memory", f"a worker needs {training_in_words(manifest)}"),
        ("", f"a validator needs {evaluation_in_words(manifest)}"),
        ("pay", pay(manifest)),
        ("trust", f"{manifest.threshold} of at least {manifest.min_validators} validators attest"),
        ("stands", stands(run)),
        ("workers", f"{len(run.workers)} enrolled, {manifest.min_workers} to begin with{speed}"),
        ("validators", f"{len(run.validators)} enrolled: {', '.join(run.validators)}" if run.validators else "none enrolled"),
        ("online", ", ".join(f"{one.name} ({one.doing or one.role})" for one in run.online) or "nobody heard while we listened"),
        ("relays", ", ".join(address_of(run).relays or run.found_on)),
        ("blobs", ", ".join(manifest.blob_servers)),
    ]
    return lines
