"""What our Lightning node does on the chain: channels opened, money taken out. Everything that spends names what it spends, and so is done once."""

from __future__ import annotations

from nostrain.core.effects import (
    ChannelOpened,
    Failed,
    OpenChannel,
    Outcome,
    PrepareWithdrawal,
    SendWithdrawal,
    SpliceOut,
    TransactionSent,
    WithdrawalPrepared,
)
from nostrain.daemon.ports import Ports
from nostrain.errors import LocalProtocolError
from nostrain.ports.lightning import ChannelOrder, Lightning, SentResult, SpliceOrder, WithdrawalOrder
from nostrain.protocol.manifest import SAT

ChainEffect = OpenChannel | SpliceOut | PrepareWithdrawal | SendWithdrawal


async def run(effect: ChainEffect, ports: Ports) -> Outcome:
    """Raises Unavailable, OutcomeUnknown."""
    lightning = ports.lightning
    if lightning is None:
        raise LocalProtocolError("a transaction to make, and no Lightning node")
    match effect:
        case OpenChannel():
            return await open_channel(effect, lightning)
        case SpliceOut(channel_id=channel_id, funding_txid=funding_txid, amount_msat=amount):
            return ended(await lightning.splice_out(SpliceOrder(channel_id, funding_txid, amount // SAT)))
        case PrepareWithdrawal(address=address, amount_msat=amount, coins=coins, feerate_perkb=feerate):
            made = await lightning.prepare_withdrawal(WithdrawalOrder(address, amount // SAT, coins, feerate))
            return Failed(made.reason) if made.txid is None else WithdrawalPrepared(made.txid, made.psbt)
        case SendWithdrawal(txid=txid, psbt=psbt, coins=coins):
            return ended(await lightning.send_withdrawal(txid, psbt, coins))


def ended(result: SentResult) -> Outcome:
    """As the machines take it."""
    return Failed(result.reason) if result.txid is None else TransactionSent(result.txid)


async def open_channel(effect: OpenChannel, lightning: Lightning) -> Outcome:
    """A channel from the coins that were chosen for it."""
    order = ChannelOrder(
        node_id=effect.node_id,
        address=effect.address or None,
        capacity_sat=effect.capacity_msat // SAT,
        coins=effect.coins,
        feerate_perkb=effect.feerate_perkb,
        announce=effect.announce,
        ask=effect.ask,
    )
    result = await lightning.open_channel(order)
    return Failed(result.reason) if result.txid is None else ChannelOpened(result.txid, result.channel_id)
