"""Money out of lightningd: of a channel into its wallet (`spliceout`), and of the wallet to an address, signed and kept before it is sent.

A channel's funding is spent once: while a splice waits, lightningd lists it (`inflight`), and afterwards the channel has another funding
transaction. A withdrawal is a signed transaction, known before it is sent: to send it again is to send the same one, and its coins cannot be spent
twice. `withdraw`, and `txsend`, would have left nothing to ask for after a lost reply. Checked against lightningd 26.06 by
`tests/contracts/test_lightning_withdrawals.py`; it takes no address as the destination of `spliceout`.
"""

from __future__ import annotations

from typing import Final

from nostrain.errors import Unavailable
from nostrain.lightning import wallet
from nostrain.lightning.node import NORMAL, ClnNode
from nostrain.lightning.replies import Anything, PeerChannel, Sent, SignedPsbt, TxPrepared
from nostrain.lightning.rpc import ClnError
from nostrain.ports.lightning import Prepared, SentResult, SpliceOrder, WithdrawalOrder
from nostrain.units import Digest

SPLICE_S: Final = 120.0
NOT_RESERVED: Final = "is not reserved"
ALREADY_RESERVED: Final = "already reserved"


async def splice_out(node: ClnNode, order: SpliceOrder) -> SentResult:
    """See `ports.lightning.Lightning.splice_out`."""
    channel = await the_channel(node, order)
    known = spliced(channel, order)
    if known is not None or channel is None:
        return known or SentResult(None, "the channel is gone")
    if channel.state != NORMAL:
        return SentResult(None, f"the channel is in state {channel.state}")
    if not channel.peer_connected:
        return SentResult(None, "its peer is away")  # which may be for good, and nothing else is withdrawn meanwhile
    if channel.htlcs:
        raise Unavailable(f"channel {order.channel_id[:8]}: HTLCs are in it")
    params = {"channel": order.channel_id, "amount": f"{order.amount_sat}sat"}
    try:
        return SentResult((await node.rpc.call("spliceout", params, Sent, timeout_s=SPLICE_S)).txid)
    except ClnError as error:
        return spliced(await the_channel(node, order), order) or SentResult(None, str(error))


async def the_channel(node: ClnNode, order: SpliceOrder) -> PeerChannel | None:
    """As it is now. Raises Unavailable."""
    return next((channel for channel in await node.channels() if channel.channel_id == order.channel_id), None)


def spliced(channel: PeerChannel | None, order: SpliceOrder) -> SentResult | None:
    """The transaction that spends the funding that was there when the splice was decided, if there is one."""
    if channel is None:
        return None
    if channel.funding_txid != order.funding_txid:
        return SentResult(Digest(channel.funding_txid))
    return SentResult(channel.inflight[-1].funding_txid) if channel.inflight else None


async def prepare(node: ClnNode, order: WithdrawalOrder) -> Prepared:
    """See `ports.lightning.Lightning.prepare_withdrawal`."""
    params: dict[str, object] = {"outputs": [{order.address: f"{order.amount_sat}sat"}], "utxos": list(order.coins)}
    params |= {"feerate": f"{order.feerate_perkb}perkb"} if order.feerate_perkb else {}
    try:
        made = await node.rpc.call("txprepare", params, TxPrepared, timeout_s=node.timeout_s)
    except ClnError as error:
        if ALREADY_RESERVED in error.message:
            raise Unavailable(f"the withdrawal: {error.message}") from error
        return Prepared(None, reason=str(error))
    try:
        signed = await node.ask("signpsbt", {"psbt": made.psbt}, SignedPsbt)
    except ClnError as error:
        await discard(node, made.txid)
        return Prepared(None, reason=str(error))
    return Prepared(made.txid, signed.signed_psbt)


async def discard(node: ClnNode, txid: Digest) -> None:
    """Free the coins of a transaction that will not be sent. Raises Unavailable."""
    await node.read("txdiscard", {"txid": txid}, Anything)


async def send(node: ClnNode, txid: Digest, psbt: str, coins: tuple[str, ...]) -> SentResult:
    """See `ports.lightning.Lightning.send_withdrawal`."""
    known = await sent(node, txid, coins)
    if known is not None:
        return known
    try:
        await node.rpc.call("sendpsbt", {"psbt": psbt}, Sent, timeout_s=node.timeout_s)
    except ClnError as error:
        known = await sent(node, txid, coins)
        if known is None and NOT_RESERVED in error.message:
            await node.read("reserveinputs", {"psbt": psbt}, Anything)  # they were for 72 blocks, and we were away for longer
        if known is None:
            raise Unavailable(f"the withdrawal {txid[:8]} is not taken: {error}") from error
        return known
    return SentResult(txid)


async def sent(node: ClnNode, txid: Digest, coins: tuple[str, ...]) -> SentResult | None:
    """What spent the coins; None when nothing has. Raises Unavailable."""
    spender = wallet.spender(await wallet.transactions(node), coins)
    if spender is None:
        return None
    return SentResult(txid) if spender.hash == txid else SentResult(None, f"its coins were spent otherwise, by {spender.hash[:16]}")
