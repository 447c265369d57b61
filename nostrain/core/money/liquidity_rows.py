"""What the machines know of our Lightning node."""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.units import Msat, Pubkey


class Peer(msgspec.Struct, frozen=True):
    """Our open channels with one node, together: what they can carry now, and how many more HTLCs. `owner`: whose node it is, if we know."""

    node_id: str
    connected: bool
    spendable_msat: Msat
    receivable_msat: Msat
    slots_out: int
    slots_in: int
    owner: Pubkey | None = None


class LightningNode(msgspec.Struct, frozen=True, tag="lightning"):
    """Row `lightning`: our node as it was when it was last looked at. Dropped at every start.

    `reason`: why it is not ready. `told`: what was said to keep us from paid rounds, if anything.
    """

    state: Literal["ready", "syncing", "down"]
    reason: str | None = None
    peers: tuple[Peer, ...] = ()
    told: Literal["unknown", "down", "syncing", "short"] | None = None
