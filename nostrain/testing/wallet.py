"""The coins of the fake Lightning nodes, the channels that were opened from them, and what left. Coins are the key of whatever spends them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from nostrain.errors import Unavailable
from nostrain.ports.lightning import ChannelFunds, ChannelOrder, Coin, OpenResult, Prepared, SentResult, SpliceOrder, WithdrawalOrder
from nostrain.protocol.manifest import SAT
from nostrain.units import BlockHeight, Digest, Msat

RESERVED_BLOCKS = 72
LEAST_SAT = 10_000
"""A smaller channel is refused by its peer."""


@dataclass
class FakeWallet:
    """Of all nodes: coins by owner, and what became of those that are spent, by name. `channels` can be spliced, by owner; a splice in `pending`
    waits for a block. `received`: sat by address.
    """

    coins: dict[str, tuple[Coin, ...]] = field(default_factory=dict)
    spent: dict[str, OpenResult] = field(default_factory=dict)
    opened: list[tuple[str, ChannelOrder, BlockHeight]] = field(default_factory=list)
    channels: dict[str, ChannelFunds] = field(default_factory=dict)
    pending: dict[str, tuple[str, BlockHeight]] = field(default_factory=dict)
    prepared: dict[str, WithdrawalOrder] = field(default_factory=dict)
    reserved: dict[str, BlockHeight] = field(default_factory=dict)
    sent: dict[str, Digest] = field(default_factory=dict)
    received: dict[str, int] = field(default_factory=dict)

    def free(self, owner: str, height: BlockHeight) -> tuple[Coin, ...]:
        """What can be spent; splices that a block has taken are among it."""
        self.confirm(owner, height)
        return tuple(
            coin
            for coin in self.coins.get(owner, ())
            if coin.outpoint not in self.spent and coin.outpoint not in self.sent and self.reserved.get(coin.outpoint, 0) <= height
        )

    def confirm(self, owner: str, height: BlockHeight) -> None:
        """Whether a block has taken the owner's splice."""
        txid, at = self.pending.get(owner, ("", height))
        if height > at:
            del self.pending[owner]
            self.channels[owner] = ChannelFunds(self.channels[owner].channel_id, txid, self.channels[owner].spendable_msat)
            self.coins[owner] = tuple(
                Coin(coin.outpoint, coin.amount_msat, height) if coin.outpoint.startswith(txid) else coin for coin in self.coins[owner]
            )

    def splice(self, owner: str, order: SpliceOrder, height: BlockHeight) -> SentResult:
        """Move money from the owner's channel into its wallet."""
        self.confirm(owner, height)
        channel = self.channels.get(owner)
        if channel is None or channel.channel_id != order.channel_id:
            return SentResult(None, "the channel is gone")
        if channel.funding_txid != order.funding_txid:
            return SentResult(Digest(channel.funding_txid))
        if owner in self.pending:
            return SentResult(Digest(self.pending[owner][0]))
        if order.amount_sat * SAT > channel.spendable_msat:
            return SentResult(None, "more than there is")
        txid = Digest(hashlib.sha256(channel.funding_txid.encode()).hexdigest())
        self.channels[owner] = ChannelFunds(channel.channel_id, channel.funding_txid, Msat(channel.spendable_msat - order.amount_sat * SAT))
        self.pending[owner] = (txid, height)
        coin = Coin(f"{txid}:0", Msat(order.amount_sat * SAT), BlockHeight(height + 1))
        self.coins[owner] = (*self.coins.get(owner, ()), coin)
        self.reserved[coin.outpoint] = BlockHeight(height + 1)
        return SentResult(txid)

    def prepare(self, owner: str, order: WithdrawalOrder, height: BlockHeight) -> Prepared:
        """Make a transaction, and keep its coins for it. Raises Unavailable while they are kept for another."""
        own = {coin.outpoint: coin.amount_msat for coin in self.coins.get(owner, ()) if coin.outpoint not in self.sent}
        if not set(order.coins) <= own.keys() or sum(own[coin] for coin in order.coins) < order.amount_sat * SAT:
            return Prepared(None, reason="its coins do not suffice")
        if any(self.reserved.get(coin, 0) > height for coin in order.coins):
            raise Unavailable("the withdrawal: its coins are already reserved")
        self.reserved |= dict.fromkeys(order.coins, BlockHeight(height + RESERVED_BLOCKS))
        txid = Digest(hashlib.sha256(str(order).encode()).hexdigest())
        self.prepared[txid] = order
        return Prepared(txid, f"psbt:{txid}")

    def send(self, owner: str, txid: Digest, psbt: str, coins: tuple[str, ...]) -> SentResult:
        """Send what was prepared, once."""
        spenders = {self.sent[coin] for coin in coins if coin in self.sent}
        if spenders:
            return SentResult(txid) if spenders == {txid} else SentResult(None, "its coins were spent otherwise")
        order = self.prepared[txid]
        assert psbt == f"psbt:{txid}"
        assert coins == order.coins
        self.sent |= dict.fromkeys(order.coins, txid)
        self.received[order.address] = self.received.get(order.address, 0) + order.amount_sat
        change = sum(coin.amount_msat for coin in self.coins[owner] if coin.outpoint in coins) - order.amount_sat * SAT
        self.coins[owner] = (*self.coins[owner], Coin(f"{txid}:1", Msat(change), BlockHeight(1)))
        return SentResult(txid)

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
        if order.ask:
            return OpenResult(None, reason="nothing came of it")
        if sum(own[coin] for coin in order.coins) < order.capacity_sat * SAT:
            return OpenResult(None, reason="its coins do not suffice")
        if order.capacity_sat < LEAST_SAT:
            return OpenResult(None, reason="too small a channel")
        txid = Digest(hashlib.sha256(str(order.coins).encode()).hexdigest())
        result = OpenResult(txid, hashlib.sha256(txid.encode()).hexdigest())
        self.spent |= dict.fromkeys(order.coins, result)
        self.opened.append((owner, order, height))
        return result
