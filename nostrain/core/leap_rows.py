"""What a replica remembers of a leap: to the checkpoint of a later round, instead of from round to round (docs/adr/0061)."""

from __future__ import annotations

import msgspec

from nostrain.units import EventId


class Leap(msgspec.Struct, frozen=True, tag="leap"):
    """The round whose result names the checkpoint and its root. `path`: the file, once it is here."""

    announcement: EventId
    path: str | None = None
