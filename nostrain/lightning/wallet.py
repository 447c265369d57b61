"""The coins of lightningd's wallet, and what its transactions did with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from nostrain.lightning.node import ClnNode
from nostrain.lightning.replies import ListFunds, ListTransactions, WalletOutput, WalletTransaction
from nostrain.ports.lightning import Coin

MAX_COINS: Final = 32
"""The largest of them: who has more small ones merges them first."""
CONFIRMED: Final = "confirmed"


async def outputs(node: ClnNode) -> tuple[WalletOutput, ...]:
    """Every coin that no confirmed transaction has spent. Raises Unavailable."""
    return (await node.read("listfunds", {}, ListFunds)).outputs


async def coins(node: ClnNode) -> tuple[Coin, ...]:
    """The largest coins that are confirmed and not reserved, in the order of their names. Raises Unavailable."""
    found = (
        Coin(output.outpoint, output.amount_msat, output.blockheight)
        for output in await outputs(node)
        if output.status == CONFIRMED and not output.reserved and output.blockheight is not None
    )
    largest = sorted(found, key=lambda coin: (-coin.amount_msat, coin.outpoint))[:MAX_COINS]
    return tuple(sorted(largest, key=lambda coin: coin.outpoint))


async def transactions(node: ClnNode) -> tuple[WalletTransaction, ...]:
    """Every transaction of the wallet, also those that wait for a block. Raises Unavailable."""
    return (await node.read("listtransactions", {}, ListTransactions)).transactions


def spender(listed: Iterable[WalletTransaction], outpoints: Collection[str]) -> WalletTransaction | None:
    """The transaction that spends one of `outpoints`, if there is one."""
    spending = (one for one in listed if any(f"{spent.txid}:{spent.index}" in outpoints for spent in one.inputs))
    return next(spending, None)
