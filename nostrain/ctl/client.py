"""One request to the control socket, blocking."""

from __future__ import annotations

import socket
from pathlib import Path

import click
import msgspec

from nostrain.errors import RemoteProtocolError
from nostrain.wire.control import MAX_LINE, Answer, Request, parse_answer_untrusted

TIMEOUT_S = 10


def call(path: Path, request: Request, timeout_s: float | None = None) -> Answer:
    """The daemon's answer. Ends the command with one line when there is none, or when it is an error."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(timeout_s or TIMEOUT_S)
            channel.connect(str(path))
            channel.sendall(msgspec.json.encode(request) + b"\n")
            data = b""
            while len(data) <= MAX_LINE and (chunk := channel.recv(65536)):
                data += chunk
        answer = parse_answer_untrusted(data)
    except OSError as error:
        raise click.ClickException(
            f"no daemon answers on {path}: {error.strerror or error}. Is nostraind running? --control (or NOSTRAIN_CONTROL) names its socket."
        ) from None
    except RemoteProtocolError as error:
        raise click.ClickException(str(error)) from None
    if answer.error is not None:
        raise click.ClickException(answer.error)
    return answer
