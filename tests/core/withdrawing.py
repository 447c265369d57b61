"""A worker whose money goes to its operator's address by policy."""

from __future__ import annotations

import msgspec

from nostrain.core.inputs import Boot, NodeChanged
from nostrain.core.treasury.liquidity_rows import Coin, OwnChannel
from nostrain.core.treasury.policies import WithdrawPolicy
from nostrain.core.treasury.withdrawals import FEES_MSAT
from nostrain.units import BlockHeight, Digest, Msat
from tests.core.actors import HEIGHT, Node
from tests.docs.examples import WORKERS

ADDRESS = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"
SAT = 1_000
ABOVE, KEEP, RESERVE = Msat(500_000 * SAT), Msat(20_000 * SAT), Msat(50_000 * SAT)
POLICY = WithdrawPolicy(ADDRESS, ABOVE, KEEP, RESERVE, minconf=3, feerate_perkb=2000)
ENOUGH = Msat(ABOVE + RESERVE + FEES_MSAT)
TXID, SPLICED = Digest("77" * 32), Digest("55" * 32)


def coin(amount: int, txid: str = "aa" * 32, height: int = HEIGHT - 2) -> Coin:
    return Coin(f"{txid}:0", Msat(amount), BlockHeight(height))


def channel(spendable: int, id_: str = "cc", funding: str = "dd") -> OwnChannel:
    return OwnChannel(id_ * 32, funding * 32, Msat(spendable))


def worker(*coins: Coin, channels: tuple[OwnChannel, ...] = (), policy: WithdrawPolicy | None = POLICY) -> Node:
    """A worker whose operator wants its money, before it has heard of any run."""
    there = Node(WORKERS[0], "worker")
    there.identity = msgspec.structs.replace(there.identity, withdraw=policy)
    there.take(Boot(there.identity))
    there.block()
    funds(there, *coins, channels=channels)
    return there


def funds(there: Node, *coins: Coin, channels: tuple[OwnChannel, ...] = ()) -> None:
    there.take(NodeChanged("ready", None, (), "03" * 33, coins, channels))
