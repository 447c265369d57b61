"""How people and programs find a run and each other: what is advertised (docs/protocol.md, section 13). Neither money nor a state hangs on any of it."""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.units import EventId, Pubkey


class Pointer(msgspec.Struct, frozen=True, tag_field="type", tag="pointer"):
    """Content of kind 38650, by the coordinator, replaced as the run goes on. `round`: the last that is closed; `workers` and `validators` have enrolled."""

    run: EventId
    name: str
    rounds: int
    round: int
    state: Literal["waiting", "running", "finished", "halted"]
    workers: int
    validators: int
    relays: tuple[str, ...] = ()
    v: int = 1


class Presence(msgspec.Struct, frozen=True, tag_field="type", tag="presence"):
    """Content of kind 28650: somebody is here now. `round`: the last closed round as far as the author knows; `doing` is for people."""

    run: EventId
    role: Literal["coordinator", "worker", "validator"]
    name: str
    round: int
    doing: str = ""
    v: int = 1


Advert = Pointer | Presence


class RunAddress(msgspec.Struct, frozen=True):
    """A run as people hand it on: its id, and perhaps its coordinator and relays where it is found."""

    run: EventId
    coordinator: Pubkey | None = None
    relays: tuple[str, ...] = ()
