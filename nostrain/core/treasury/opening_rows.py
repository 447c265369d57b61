"""Rows of the channels that a coordinator opens by policy."""

from __future__ import annotations

import msgspec

from nostrain.core.tables import OpeningState
from nostrain.units import Digest, Msat, Pubkey, UnixTime


class Opening(msgspec.Struct, frozen=True, tag="opening"):
    """Row `opening/<worker>`: the last channel that we began to open to a worker, from nothing but `coins`. `number` counts them, `failures` those
    in a row that failed; `earlier` is the node to which an opening before it succeeded, empty if none did. `coins` of one that failed are its
    claim: whoever asked for it may have died, and its channel may come after all. `asking`: only whether it did.
    """

    worker: Pubkey
    node_id: str
    address: str
    capacity_msat: Msat
    coins: tuple[str, ...]
    at: UnixTime
    number: int = 1
    failures: int = 0
    retry_at: UnixTime = UnixTime(0)
    state: OpeningState = OpeningState.OPENING
    txid: Digest | None = None
    channel_id: str = ""
    earlier: str = ""
    asking: bool = False

    @property
    def opened_to(self) -> str:
        """The node to which the worker had a channel from us, whatever became of the last opening; empty: none."""
        return self.node_id if self.state is OpeningState.OPENED else self.earlier


class Openings(msgspec.Struct, frozen=True, tag="openings"):
    """Row `openings`: what went into channels by policy, ever, and lately by the time when it was begun, or has ended. `told`: what was said to be in the way."""

    total_msat: Msat = Msat(0)
    recent: tuple[tuple[UnixTime, Msat], ...] = ()
    told: str | None = None
