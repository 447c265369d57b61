"""What the machines know of our Lightning node."""

from __future__ import annotations

from typing import Literal

import msgspec

from nostrain.units import BlockHeight, Msat, Pubkey


class Peer(msgspec.Struct, frozen=True):
    """Our open channels with one node, together: what they can carry now, and how many more HTLCs. `owner`: whose node it is, if we know."""

    node_id: str
    connected: bool
    spendable_msat: Msat
    receivable_msat: Msat
    slots_out: int
    slots_in: int
    owner: Pubkey | None = None


class Coin(msgspec.Struct, frozen=True):
    """A confirmed output of our node's wallet that may be spent; `outpoint` is `txid:vout`, `height` the block that it is in."""

    outpoint: str
    amount_msat: Msat
    height: BlockHeight


class OwnChannel(msgspec.Struct, frozen=True):
    """A channel of ours that is open, connected, and in which no splice waits."""

    channel_id: str
    funding_txid: str
    spendable_msat: Msat


class LightningNode(msgspec.Struct, frozen=True, tag="lightning"):
    """Row `lightning`: our node as it was when it was last looked at. Dropped at every start.

    `reason`: why it is not ready. `told`: what was said to keep us from paid rounds, if anything. `coins`, `channels`: the largest ones, if a
    policy of ours spends them.
    """

    state: Literal["ready", "syncing", "down"]
    reason: str | None = None
    peers: tuple[Peer, ...] = ()
    told: Literal["unknown", "down", "syncing", "short"] | None = None
    node_id: str = ""
    coins: tuple[Coin, ...] = ()
    channels: tuple[OwnChannel, ...] = ()
