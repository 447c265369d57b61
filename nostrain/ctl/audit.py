"""`nostrain-ctl audit`: what a file of events, or a run on relays, proves, and which disputes stand. Nothing is believed but signatures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import msgspec

from nostrain.audit.proof import MAX_BYTES, Proof, check_proof, encode_proof, find_proofs, parse_proof_untrusted
from nostrain.audit.report import judged
from nostrain.ctl.options import show_json
from nostrain.errors import ConfigError, RemoteProtocolError, Unavailable
from nostrain.protocol.event import Event
from nostrain.units import EventId
from nostrain.wire.event import parse_event_untrusted
from nostrain.wire.nip19_run import parse_run_untrusted

EXIT_PROVED: Final = 3
"""Of the command, when anything is proved: neither done without a finding (0) nor not done (1)."""


class _Found(msgspec.Struct, frozen=True):
    """A proof as `--json` prints it."""

    kind: str
    accused: str
    text: str
    evidence: tuple[EventId, ...]


class _Line(msgspec.Struct):
    """Enough of a line to tell a proof from an event."""

    events: msgspec.Raw = msgspec.Raw()


def audit(path: Path | None, out: Path | None = None, *, relays: Sequence[str] = (), run: str = "", as_json: bool = False) -> int:
    """Print what events, proofs and disputes show: of the file `path` (JSON lines), and of a run on `relays`. How many proofs there are.

    Proofs are written to `out`. Raises click.ClickException when a file cannot be read or written, or no run is named for the relays.
    """
    events, claims, refused = read_events(path) if path is not None else ([], [], [])
    if relays:
        events += fetch_events(relays, run)
    shown = {encode_proof(proof): check_proof(proof) for proof in find_proofs(events)}
    for number, proof in claims:
        try:
            shown.setdefault(encode_proof(proof), check_proof(proof))
        except RemoteProtocolError as error:
            refused.append((number, str(error)))
    disputes = judged(events)
    for number, reason in sorted(refused):
        click.echo(f"line {number}: {reason}", err=True)
    if as_json:
        found = [
            _Found(proof.kind, proof.accused, shown[line], tuple(event.id for event in proof.events)) for line, proof in _decoded(shown)
        ]
        show_json({"events": len(events), "proofs": found, "disputes": disputes})
    else:
        for text in shown.values():
            click.echo(text)
        for one in disputes:
            click.echo(f"dispute {one.dispute} by {one.author} ({one.kind} by {one.accused}): {one.verdict}: {one.why}")
    counted = f"{len(events)} events, {len(claims)} claimed proofs, {len(refused)} lines refused: {len(shown)} proofs"
    click.echo(f"{counted}, {len(disputes)} disputes" if disputes else counted, err=True)
    if out is not None:
        try:
            out.write_bytes(b"".join(line + b"\n" for line in shown))
        except OSError as error:
            raise click.ClickException(f"{out}: {error.strerror}") from None
    return len(shown)


def _decoded(lines: Iterable[bytes]) -> Iterator[tuple[bytes, Proof]]:
    for line in lines:
        yield line, parse_proof_untrusted(line)


def fetch_events(relays: Sequence[str], run: str) -> list[Event]:
    """The run's events from the relays. Imports the network only now: reading a file needs none."""
    import trio

    from nostrain.devnet.stranger import read_run

    try:
        return trio.run(read_run, relays, parse_run_untrusted(run).run)
    except RemoteProtocolError as error:
        raise click.ClickException(f"--run: {error}; nostrain-ctl status --json and run list show ids") from None
    except (ConfigError, Unavailable) as error:
        raise click.ClickException(str(error)) from None


def read_events(path: Path) -> tuple[list[Event], list[tuple[int, Proof]], list[tuple[int, str]]]:
    """Events, claimed proofs with their line, refused lines with the reason."""
    events: list[Event] = []
    claims: list[tuple[int, Proof]] = []
    refused: list[tuple[int, str]] = []
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_BYTES + 2):
                number += 1
                if len(line) > MAX_BYTES + 1:
                    raise click.ClickException(f"{path}: line {number} has more than {MAX_BYTES} bytes")
                if not line.strip():
                    continue
                try:
                    if _is_proof(line):
                        claims.append((number, parse_proof_untrusted(line.strip())))
                    else:
                        events.append(parse_event_untrusted(line.strip()))
                except RemoteProtocolError as error:
                    refused.append((number, str(error)))
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    return events, claims, refused


def _is_proof(line: bytes) -> bool:
    try:
        return bool(bytes(msgspec.json.decode(line, type=_Line).events))
    except (ValueError, RecursionError):
        return False
