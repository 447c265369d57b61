"""What `nostrain-ctl` and `nostraind` say to each other on the Unix socket: one JSON object a line, a request and its answer."""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.errors import RemoteProtocolError
from nostrain.units import Digest, EventId, Pubkey

MAX_LINE: Final = 1 << 20


class Request(msgspec.Struct, frozen=True):
    """`status`, `metrics` or `stop`."""

    method: str
    v: int = 1


class RunStatus(msgspec.Struct, frozen=True):
    """The run as the daemon sees it."""

    id: EventId
    name: str
    coordinator: Pubkey
    round: int
    rounds: int
    phase: str
    halted: str | None


class Status(msgspec.Struct, frozen=True):
    """Everything `nostrain-ctl status` shows. `engine_starts` above 1 means that the engine process had to be replaced."""

    name: str
    pubkey: Pubkey
    roles: tuple[str, ...]
    version: str
    relays_connected: tuple[str, ...]
    run: RunStatus | None
    state_id: Digest | None
    replica: str | None
    submission: str | None
    duty: str | None
    outstanding: tuple[str, ...]
    counters: dict[str, int]
    engine_starts: int
    blobs_url: str | None


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """Exactly one of the fields is set."""

    status: Status | None = None
    metrics: str | None = None
    stopping: bool | None = None
    error: str | None = None


def parse_request_untrusted(line: bytes) -> Request:
    """Raises RemoteProtocolError."""
    try:
        return msgspec.json.decode(line, type=Request)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError("control request", str(error)) from None


def parse_answer_untrusted(line: bytes) -> Answer:
    """Raises RemoteProtocolError."""
    try:
        return msgspec.json.decode(line, type=Answer)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RemoteProtocolError("control answer", str(error)) from None
