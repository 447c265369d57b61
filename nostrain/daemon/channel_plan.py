"""Which channels a coordinator needs for its manifest: one to each worker, opened by the coordinator (`nostrain-ctl wallet plan`).

The worker's reserve and its first fee are pushed to it at the opening: it has nothing to buy its first ticket with.
"""

from __future__ import annotations

from typing import Final

from nostrain.core.treasury.capacity import capacity_msat, reserve_msat, sent_msat
from nostrain.core.treasury.liquidity import usable
from nostrain.core.treasury.liquidity_rows import LightningNode
from nostrain.protocol.manifest import SettlementSpec
from nostrain.units import Msat
from nostrain.wire.control import ChannelPlan

SLOTS: Final = 30
"""HTLCs that Core Lightning allows a channel in each direction (`max-concurrent-htlcs`)."""


def channel_plan(
    settlement: SettlementSpec, levels: int, workers: int, rounds: int, feerate_perkb: int, node: LightningNode | None
) -> ChannelPlan:
    """For `workers` workers that reach every level of `rounds` rounds, without a channel being filled up in between."""
    level, fee = settlement.level_msat(levels), settlement.fee_msat
    a_round = level * levels
    capacity = capacity_msat(settlement, levels, rounds, feerate_perkb)
    return ChannelPlan(
        workers=workers,
        rounds=rounds,
        levels=levels,
        level_msat=level,
        fee_msat=fee,
        sent_msat=sent_msat(settlement, levels, rounds),
        capacity_msat=capacity,
        push_msat=Msat(reserve_msat(capacity) + fee),
        reserve_msat=Msat(reserve_msat(capacity)),
        slots=SLOTS,
        shared_channels=-(-workers * levels // SLOTS),
        spendable_msat=None if node is None else Msat(sum(peer.spendable_msat for peer in usable(node))),
        peers_ready=0 if node is None else sum(peer.spendable_msat >= a_round and peer.slots_out >= levels for peer in usable(node)),
    )
