"""What our Lightning node is and can carry, told to the machines whenever it changes.

Whose nodes our peers are is known from the invoices that workers have sent us: lightningd knows nothing of Nostr keys.
"""

from __future__ import annotations

import logging
from typing import Final

import trio

from nostrain.core.escrow.rows import Payer
from nostrain.core.inputs import Block, NodeChanged
from nostrain.core.rows import NodeState
from nostrain.core.treasury.liquidity_rows import Coin, OwnChannel, Peer
from nostrain.daemon.runtime import Runtime
from nostrain.errors import RemoteProtocolError, Unavailable
from nostrain.ports.lightning import Lightning, NodeFunds
from nostrain.units import Pubkey
from nostrain.wire.bolt11 import parse_bolt11_untrusted

log = logging.getLogger("nostrain.feeds")

POLL_S: Final = 5.0
ANSWER_S: Final = 10.0
"""A node that has not answered for so long is taken to be down, whatever the client's own patience is."""


class Owners:
    """Whose Lightning node is whose, from the invoices in the payer's rows. It remembers what it has read, also of rounds that are dropped."""

    def __init__(self) -> None:
        self._read: set[str] = set()
        self._owners: dict[str, Pubkey] = {}

    def learn(self, state: NodeState) -> dict[str, Pubkey]:
        """Owners by node id."""
        for key in state.groups.get("payer", ()):
            row = state.rows[key]
            bolt11 = row.levels[0].bolt11 if isinstance(row, Payer) and row.levels else None
            if key in self._read or bolt11 is None or not isinstance(row, Payer):
                continue
            self._read.add(key)
            try:
                self._owners[parse_bolt11_untrusted(bolt11).payee] = row.payee
            except RemoteProtocolError:
                continue  # it is refused when it is paid
        self._read &= set(state.groups.get("payer", ()))
        return self._owners


async def node_feed(runtime: Runtime, lightning: Lightning) -> None:
    """Look every POLL_S, until cancelled. Raises ConfigError when the node is not the one that was configured."""
    owners, height, told = Owners(), None, None
    while True:
        found, reason = await look(lightning)
        if found is not None and found.syncing is None and found.height != height:
            height = found.height
            await runtime.put(Block(height))
        state = describe(found, reason, owners.learn(runtime.state))
        if state != told:
            if told is None or state.state != told.state:
                log.info("our Lightning node is %s", state.state if state.reason is None else f"{state.state}: {state.reason}")
            told = state
            await runtime.put(state)
        await trio.sleep(POLL_S)


async def look(lightning: Lightning) -> tuple[NodeFunds | None, str]:
    """What the node says, or None and why it says nothing."""
    with trio.move_on_after(ANSWER_S):
        try:
            return await lightning.funds(), ""
        except Unavailable as error:
            return None, str(error)
    return None, f"it has not answered for {ANSWER_S:.0f} s"


def describe(found: NodeFunds | None, reason: str, owners: dict[str, Pubkey]) -> NodeChanged:
    """As the machines take it."""
    if found is None:
        return NodeChanged("down", reason)
    if found.syncing is not None:
        return NodeChanged("syncing", found.syncing)
    peers = tuple(
        Peer(
            node_id=peer.node_id,
            connected=peer.connected,
            spendable_msat=peer.spendable_msat,
            receivable_msat=peer.receivable_msat,
            slots_out=peer.slots_out,
            slots_in=peer.slots_in,
            owner=owners.get(peer.node_id),
        )
        for peer in found.peers
    )
    coins = tuple(Coin(coin.outpoint, coin.amount_msat, coin.height) for coin in found.coins)
    channels = tuple(OwnChannel(one.channel_id, one.funding_txid, one.spendable_msat) for one in found.channels)
    return NodeChanged("ready", None, peers, found.node_id, coins, channels)
