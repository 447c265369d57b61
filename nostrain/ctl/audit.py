"""`nostrain-ctl audit`: what a file of events proves. Offline; nothing in the file is believed but signatures."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from nostrain.audit.proof import MAX_BYTES, Proof, check_proof, encode_proof, find_proofs, parse_proof_untrusted
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.event import Event
from nostrain.wire.event import parse_event_untrusted


class _Line(msgspec.Struct):
    """Enough of a line to tell a proof from an event."""

    events: msgspec.Raw = msgspec.Raw()


def audit(path: Path, out: Path | None = None) -> int:
    """Print what the events and proofs in `path` (JSON lines) show, and write the proofs to `out`. How many proofs there are.

    Raises click.ClickException when a file cannot be read or written.
    """
    events, claims, unreadable = _read(path)
    proofs = find_proofs(events)
    shown = {encode_proof(proof): check_proof(proof) for proof in proofs}
    for number, proof in claims:
        try:
            shown.setdefault(encode_proof(proof), check_proof(proof))
        except RemoteProtocolError as error:
            unreadable.append((number, str(error)))
    for number, reason in sorted(unreadable):
        click.echo(f"line {number}: {reason}", err=True)
    for text in shown.values():
        click.echo(text)
    click.echo(f"{len(events)} events, {len(claims)} claimed proofs, {len(unreadable)} lines refused: {len(shown)} proofs", err=True)
    if out is not None:
        try:
            out.write_bytes(b"".join(line + b"\n" for line in shown))
        except OSError as error:
            raise click.ClickException(f"{out}: {error.strerror}") from None
    return len(shown)


def _read(path: Path) -> tuple[list[Event], list[tuple[int, Proof]], list[tuple[int, str]]]:
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
