"""Which channels a coordinator needs for its manifest: one to each worker, opened by the coordinator (`nostrain-ctl wallet plan`).

A channel has to carry all levels of a round at once, and loses at most those, less the ticket's fee, round after round. Both sides keep 1 % of
its capacity as reserve (BOLT 2), and who opened it pays for the commitment transaction (BOLT 3, anchors) with one more HTLC and twice the feerate
to spare, as BOLT 2 recommends. The worker's reserve and its first fee are pushed to it at the opening: it has nothing to buy its first ticket with.
"""

from __future__ import annotations

from typing import Final

from nostrain.core.money.liquidity import usable
from nostrain.core.money.liquidity_rows import LightningNode
from nostrain.protocol.manifest import SAT, SettlementSpec
from nostrain.units import Msat
from nostrain.wire.control import ChannelPlan

RESERVE_PERCENT: Final = 1
DUST_SAT: Final = 546
"""No reserve is smaller."""
ANCHORS_SAT: Final = 660
COMMITMENT_WEIGHT: Final = 1124
HTLC_WEIGHT: Final = 172
SPARE_HTLCS: Final = 2
"""A ticket, and one to spare."""
FEERATE_BUFFER: Final = 2
SLOTS: Final = 30
"""HTLCs that Core Lightning allows a channel in each direction (`max-concurrent-htlcs`)."""


def channel_plan(
    settlement: SettlementSpec, levels: int, workers: int, rounds: int, feerate_perkb: int, node: LightningNode | None
) -> ChannelPlan:
    """For `workers` workers that reach every level of `rounds` rounds, without a channel being filled up in between."""
    level, fee = settlement.level_msat(levels), settlement.fee_msat
    a_round = level * levels
    sent = a_round + (rounds - 1) * (a_round - fee)
    capacity = smallest(sent + commitment_msat(levels, feerate_perkb))
    return ChannelPlan(
        workers=workers,
        rounds=rounds,
        levels=levels,
        level_msat=level,
        fee_msat=fee,
        sent_msat=Msat(sent),
        capacity_msat=Msat(capacity),
        push_msat=Msat(reserve_msat(capacity) + fee),
        reserve_msat=Msat(reserve_msat(capacity)),
        slots=SLOTS,
        shared_channels=-(-workers * levels // SLOTS),
        spendable_msat=None if node is None else Msat(sum(peer.spendable_msat for peer in usable(node))),
        peers_ready=0 if node is None else sum(peer.spendable_msat >= a_round and peer.slots_out >= levels for peer in usable(node)),
    )


def smallest(inside: int) -> int:
    """The least capacity, in whole sat, that has room for `inside` between both reserves. The pushed fee is back when a round is locked."""
    by_share = -(-inside * 100 // (100 - 2 * RESERVE_PERCENT))
    by_dust = inside + 2 * DUST_SAT * SAT
    return -(-max(by_share, by_dust) // SAT) * SAT


def reserve_msat(capacity: int) -> int:
    """What each side has to keep."""
    return max(DUST_SAT * SAT, capacity * RESERVE_PERCENT // 100)


def commitment_msat(levels: int, feerate_perkb: int) -> int:
    """What the opener keeps for the commitment transaction of a round."""
    weight = COMMITMENT_WEIGHT + HTLC_WEIGHT * (levels + SPARE_HTLCS)
    return (-(-weight * feerate_perkb * FEERATE_BUFFER // 4000) + ANCHORS_SAT) * SAT
