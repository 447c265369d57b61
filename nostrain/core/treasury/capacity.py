"""How large a channel from a coordinator to a worker has to be.

A channel has to carry all levels of a round at once, and loses at most those, less the ticket's fee, round after round. Both sides keep 1 % of
its capacity as reserve (BOLT 2), and who opened it pays for the commitment transaction (BOLT 3, anchors) with one more HTLC and twice the feerate
to spare, as BOLT 2 recommends.
"""

from __future__ import annotations

from typing import Final

from nostrain.protocol.manifest import SAT, SettlementSpec
from nostrain.units import Msat

RESERVE_PERCENT: Final = 1
DUST_SAT: Final = 546
"""No reserve is smaller."""
ANCHORS_SAT: Final = 660
COMMITMENT_WEIGHT: Final = 1124
HTLC_WEIGHT: Final = 172
SPARE_HTLCS: Final = 2
"""A ticket, and one to spare."""
FEERATE_BUFFER: Final = 2


def capacity_msat(settlement: SettlementSpec, levels: int, rounds: int, feerate_perkb: int) -> Msat:
    """For one worker that reaches every level of `rounds` rounds, without a refill in between; in whole sat."""
    return smallest(sent_msat(settlement, levels, rounds) + commitment_msat(levels, feerate_perkb))


def sent_msat(settlement: SettlementSpec, levels: int, rounds: int) -> Msat:
    """What is sent at most: all levels of every round, less the tickets that come back between them."""
    a_round = settlement.level_msat(levels) * levels
    return Msat(a_round + (rounds - 1) * (a_round - settlement.fee_msat))


def smallest(inside: int) -> Msat:
    """The least capacity, in whole sat, that has room for `inside` between both reserves. The pushed fee is back when a round is locked."""
    by_share = -(-inside * 100 // (100 - 2 * RESERVE_PERCENT))
    by_dust = inside + 2 * DUST_SAT * SAT
    return Msat(-(-max(by_share, by_dust) // SAT) * SAT)


def reserve_msat(capacity: int) -> int:
    """What each side has to keep."""
    return max(DUST_SAT * SAT, capacity * RESERVE_PERCENT // 100)


def commitment_msat(levels: int, feerate_perkb: int) -> int:
    """What the opener keeps for the commitment transaction of a round."""
    weight = COMMITMENT_WEIGHT + HTLC_WEIGHT * (levels + SPARE_HTLCS)
    return (-(-weight * feerate_perkb * FEERATE_BUFFER // 4000) + ANCHORS_SAT) * SAT
