"""The coins of the fake Lightning nodes, and the channels that were opened from them. Coins of one opening are its key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from nostrain.ports.lightning import ChannelOrder, Coin, OpenResult
from nostrain.protocol.manifest import SAT
from nostrain.units import BlockHeight, Digest, Msat

LEAST_SAT = 10_000
"""A smaller channel is refused by its peer."""


@dataclass
class FakeWallet:
    """Of all nodes: coins by owner, and what became of those that are spent, by name."""

    coins: dict[str, tuple[Coin, ...]] = field(default_factory=dict)
    spent: dict[str, OpenResult] = field(default_factory=dict)
    opened: list[tuple[str, ChannelOrder, BlockHeight]] = field(default_factory=list)

    def free(self, owner: str) -> tuple[Coin, ...]:
        """What can be spent."""
        return tuple(coin for coin in self.coins.get(owner, ()) if coin.outpoint not in self.spent)

    def peers(self, owner: str, height: BlockHeight) -> list[tuple[str, Msat]]:
        """The channels that a block has taken, with what they can send."""
        return [(order.node_id, Msat(order.capacity_sat * SAT)) for who, order, at in self.opened if who == owner and height > at]

    def open(self, owner: str, order: ChannelOrder, height: BlockHeight) -> OpenResult:
        """Open a channel, or say what was done with the coins."""
        known = [self.spent[coin] for coin in order.coins if coin in self.spent]
        if known:
            return known[0]
        own = {coin.outpoint: coin.amount_msat for coin in self.coins.get(owner, ())}
        if not set(order.coins) <= own.keys():
            return OpenResult(None, reason="its coins are not in the wallet")
        if sum(own[coin] for coin in order.coins) < order.capacity_sat * SAT:
            return OpenResult(None, reason="its coins do not suffice")
        if order.capacity_sat < LEAST_SAT:
            return OpenResult(None, reason="too small a channel")
        txid = Digest(hashlib.sha256(str(order.coins).encode()).hexdigest())
        result = OpenResult(txid, hashlib.sha256(txid.encode()).hexdigest())
        self.spent |= dict.fromkeys(order.coins, result)
        self.opened.append((owner, order, height))
        return result
