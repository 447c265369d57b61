"""The row of what a worker trains in a delayed run, before there is a submission that it belongs to."""

from __future__ import annotations

import msgspec

from nostrain.core.tables import AheadState
from nostrain.protocol.manifest import BlobRef
from nostrain.units import Digest


class Ahead(msgspec.Struct, frozen=True, tag="ahead"):
    """Row `ahead/<round>`: our training for a round, from state `base`, whose file is `checkpoint` once our replica stands on it."""

    number: int
    base: Digest
    shard: Digest
    state: AheadState = AheadState.PREPARING
    shard_path: str | None = None
    checkpoint: str | None = None
    delta: BlobRef | None = None
    delta_path: str | None = None
    state_out: str | None = None
    reason: str | None = None
