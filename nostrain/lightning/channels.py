"""Opening a channel once. `fundchannel` has no key of its own, so the coins that it may spend are the key.

lightningd reserves the coins that it is told to use before anything is sent, refuses to use them again while they are reserved, and lists the
transaction that spends them as soon as it is sent: so a second call can find out what the first one did, and two can never open two channels. An
opening that lightningd lost in a crash leaves its coins reserved, for 72 blocks at most; until then it is not known, and nothing is done.
Checked against lightningd 26.06 by `tests/contracts/test_lightning_channels.py`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import trio

from nostrain.errors import OutcomeUnknown, Unavailable
from nostrain.lightning import wallet
from nostrain.lightning.node import ClnNode
from nostrain.lightning.replies import Anything, Funded
from nostrain.lightning.rpc import ClnError
from nostrain.ports.lightning import ChannelOrder, OpenResult

CONNECT_S: Final = 60.0
"""How long the peer may take to answer at its address: one that only accepts connections must not keep others from a channel."""
OPEN_S: Final = 120.0
"""How long it may take to agree; then it is cancelled, which lightningd refuses once the transaction is out. Again after as long."""
LINGER_S: Final = 3_600.0
"""How long `fundchannel` may take to end after all: while it connects, because the peer went away again, there is nothing to cancel."""
CLEAR_S: Final = 10.0
POLL_S: Final = 0.5


async def open_channel(node: ClnNode, order: ChannelOrder) -> OpenResult:
    """See `ports.lightning.Lightning.open_channel`."""
    known = await outcome(node, order)
    if known is not None:
        return known
    if order.ask:
        return OpenResult(None, reason="nothing came of it")
    # Connected first, so that `fundchannel` takes the coins at once: from then on it can be seen.
    refused = await connect(node, order)
    if refused is not None:
        return OpenResult(None, reason=refused)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(press, node, order)
        made = await fund(node, order)
        nursery.cancel_scope.cancel()
    if isinstance(made, ClnError):
        return await ended(node, order, str(made))
    if isinstance(made, Exception):
        raise made
    return OpenResult(made.txid, made.channel_id)


async def connect(node: ClnNode, order: ChannelOrder) -> str | None:
    """Why the peer cannot be reached, None when we are connected. Raises Unavailable."""
    begun = trio.current_time()
    try:
        await node.rpc.call("connect", where(order), Anything, timeout_s=CONNECT_S)
    except ClnError as error:
        return str(error)
    except OutcomeUnknown as error:
        if trio.current_time() < begun + CONNECT_S:
            raise Unavailable(str(error)) from error
        return f"the peer did not answer in {CONNECT_S:.0f} s"
    return None


async def fund(node: ClnNode, order: ChannelOrder) -> Funded | Exception:
    """What `fundchannel` replies, or the error that a nursery would wrap."""
    try:
        return await node.rpc.call("fundchannel", terms(order), Funded, timeout_s=LINGER_S)
    except Exception as error:
        return error


async def press(node: ClnNode, order: ChannelOrder) -> None:
    """Cancel an opening that the peer does not end, until `fundchannel` says so: what it has not ended may still become a channel."""
    while True:
        await trio.sleep(OPEN_S)
        with suppress(ClnError, Unavailable):
            await node.ask("fundchannel_cancel", {"id": order.node_id}, Anything)


def where(order: ChannelOrder) -> dict[str, object]:
    """connect's parameters."""
    if order.address is None:
        return {"id": order.node_id}
    host, _, port = order.address.rpartition(":")
    return {"id": order.node_id, "host": host.strip("[]"), "port": int(port)}


def terms(order: ChannelOrder) -> dict[str, object]:
    """fundchannel's parameters."""
    params: dict[str, object] = {
        "id": order.node_id,
        "amount": order.capacity_sat,
        "announce": order.announce,
        "utxos": list(order.coins),
    }
    return params | ({"feerate": f"{order.feerate_perkb}perkb"} if order.feerate_perkb else {})


async def outcome(node: ClnNode, order: ChannelOrder) -> OpenResult | None:
    """What became of the coins; None when nothing has. Raises Unavailable while that is not known."""
    sent = wallet.spender(await wallet.transactions(node), order.coins)
    if sent is not None:
        for channel in await node.channels(order.node_id):
            if channel.funding_txid == sent.hash:
                return OpenResult(sent.hash, channel.channel_id)
        return OpenResult(None, reason=f"its coins were spent otherwise, by {sent.hash[:16]}")
    listed = {output.outpoint: output for output in await wallet.outputs(node)}
    if not set(order.coins) <= listed.keys():
        return OpenResult(None, reason="its coins are not in the wallet")
    if any(listed[coin].reserved for coin in order.coins):
        raise Unavailable(f"the opening to {order.node_id[:8]}: its coins are reserved, by itself or by something else")
    return None


async def ended(node: ClnNode, order: ChannelOrder, reason: str) -> OpenResult:
    """How an opening that came back with an error ended: it has failed if its coins are free again. Raises OutcomeUnknown."""
    with trio.move_on_after(CLEAR_S):
        while True:
            try:
                return await outcome(node, order) or OpenResult(None, reason=reason)
            except Unavailable:
                await trio.sleep(POLL_S)
    raise OutcomeUnknown(f"the opening to {order.node_id[:8]}: {reason}; its coins are still reserved")
