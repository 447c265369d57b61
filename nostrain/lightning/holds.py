"""Hold invoices, through the methods of BoltzExchange/hold. Every call is idempotent: after an error the plugin's table is read.

The plugin's own `holdinvoice` takes neither an expiry nor a final CLTV over this socket, and gives 80 blocks: so the invoice is written here, signed
by lightningd (`signinvoice`) and handed to the plugin (`injectholdinvoice`).
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from nostrain.errors import LocalProtocolError, RemoteProtocolError, Unavailable
from nostrain.lightning.node import ClnNode
from nostrain.lightning.replies import Anything, HeldInvoice, ListHoldInvoices, ListInvoices, Signed
from nostrain.lightning.rpc import ClnError
from nostrain.ports.lightning import HoldState, HoldUpdate
from nostrain.units import Digest, Msat, UnixTime
from nostrain.wire.bolt11 import Bolt11, encode_bolt11, parse_bolt11_untrusted, parse_unsigned_untrusted, unsigned

DESCRIPTION: Final = "nostrain"
QUEUE: Final = 1024


async def look_up(node: ClnNode, payment_hash: Digest) -> HeldInvoice | None:
    """The hold invoice of a hash. Raises Unavailable."""
    found = await node.read("listholdinvoices", {"payment_hash": payment_hash}, ListHoldInvoices)
    return next((held for held in found.holdinvoices if held.payment_hash == payment_hash), None)


async def make(node: ClnNode, payment_hash: Digest, amount_msat: Msat, min_final_cltv: int, expiry_s: int) -> str:
    """See `ports.lightning.Lightning.hold_invoice`."""
    known = await look_up(node, payment_hash)
    if known is None:
        if (await node.read("listinvoices", {"payment_hash": payment_hash}, ListInvoices)).invoices:
            raise LocalProtocolError(f"the hash {payment_hash[:8]} is in use by an ordinary invoice")
        bolt11 = await signed(node, payment_hash, amount_msat, min_final_cltv, expiry_s)
        try:
            await node.ask("injectholdinvoice", {"invoice": bolt11, "min_cltv": min_final_cltv}, Anything)
        except ClnError as error:
            known = await look_up(node, payment_hash)
            if known is None:
                raise Unavailable(str(error)) from error
        else:
            return bolt11
    if amount_of(known) != amount_msat:
        raise LocalProtocolError(f"the hash {payment_hash[:8]} is in use for another amount")
    return known.invoice


async def signed(node: ClnNode, payment_hash: Digest, amount_msat: Msat, min_final_cltv: int, expiry_s: int) -> str:
    """A new invoice of this node's on that hash. Raises Unavailable."""
    node_id, currency = await node.identity()
    terms = Bolt11(
        currency=currency,
        payment_hash=payment_hash,
        payment_secret=secrets.token_hex(32),
        created_at=UnixTime(int(time.time())),
        amount_msat=amount_msat,
        description=DESCRIPTION,
        expiry_s=expiry_s,
        min_final_cltv=min_final_cltv,
    )
    bolt11 = (await node.read("signinvoice", {"invstring": encode_bolt11(terms, unsigned)}, Signed)).bolt11
    try:
        made = parse_bolt11_untrusted(bolt11)
    except RemoteProtocolError as error:
        raise Unavailable(f"signinvoice: {error}") from error
    asked = (node_id, payment_hash, amount_msat, min_final_cltv)
    if (made.payee, made.payment_hash, made.amount_msat, made.min_final_cltv) != asked:
        raise Unavailable("signinvoice: lightningd signed another invoice")
    return bolt11


def amount_of(held: HeldInvoice) -> Msat:
    """What the invoice asks for. Raises Unavailable when the plugin's table has no invoice there."""
    try:
        return parse_unsigned_untrusted(held.invoice).amount_msat or Msat(0)
    except RemoteProtocolError as error:
        raise Unavailable(f"listholdinvoices: {error}") from error


async def settle(node: ClnNode, preimage: str) -> None:
    """See `ports.lightning.Lightning.settle`."""
    payment_hash = Digest(hashlib.sha256(bytes.fromhex(preimage)).hexdigest())
    try:
        await node.ask("settleholdinvoice", {"preimage": preimage}, Anything)
    except ClnError as error:
        held = await look_up(node, payment_hash)
        if held is not None and held.state == HoldState.PAID.value:
            return
        if held is None or held.state != HoldState.ACCEPTED.value:
            raise LocalProtocolError(f"settle {payment_hash[:8]}: {error.message}; it is {held.state if held else 'unknown'}") from error
        # Accepted, and yet nothing to settle: either the plugin has just started and lightningd has not told it, or the HTLCs ran out.
        if not any(htlc.payment_hash == payment_hash for channel in await node.channels() for htlc in channel.htlcs):
            raise LocalProtocolError(f"settle {payment_hash[:8]}: its HTLCs are gone") from error
        raise Unavailable(str(error)) from error


async def cancel(node: ClnNode, payment_hash: Digest) -> None:
    """See `ports.lightning.Lightning.cancel`."""
    try:
        await node.ask("cancelholdinvoice", {"payment_hash": payment_hash}, Anything)
    except ClnError as error:
        held = await look_up(node, payment_hash)
        if held is None or held.state == HoldState.CANCELLED.value:
            return
        if held.state == HoldState.PAID.value:
            raise LocalProtocolError(f"cancel {payment_hash[:8]}: the invoice is paid") from error
        raise Unavailable(str(error)) from error


@asynccontextmanager
async def watch(node: ClnNode, poll_s: float) -> AsyncIterator[trio.MemoryReceiveChannel[HoldUpdate]]:
    """See `ports.lightning.Lightning.holds`, by asking every `poll_s`. When the node is lost the channel ends, and leaving raises Unavailable."""
    send, receive = trio.open_memory_channel[HoldUpdate](QUEUE)
    lost: list[Unavailable] = []

    async def poll() -> None:
        told: dict[Digest, HoldState] = {}
        try:
            while True:
                for update in changes(await node.read("listholdinvoices", {}, ListHoldInvoices), told):
                    await send.send(update)
                await trio.sleep(poll_s)
        except Unavailable as error:
            lost.append(error)
        finally:
            send.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poll)
        yield receive
        nursery.cancel_scope.cancel()
    if lost:
        raise lost[0]


def changes(listed: ListHoldInvoices, told: dict[Digest, HoldState]) -> list[HoldUpdate]:
    """What is new since `told`, which is brought up to date. Raises Unavailable for a state that is none."""
    updates = []
    for held in listed.holdinvoices:
        try:
            state = HoldState(held.state)
        except ValueError:
            raise Unavailable(f"listholdinvoices: unknown state {held.state!r:.32}") from None
        if told.get(held.payment_hash) is state:
            continue
        told[held.payment_hash] = state
        expiries = [htlc.cltv_expiry for htlc in held.htlcs if htlc.state == HoldState.ACCEPTED.value and htlc.cltv_expiry is not None]
        updates.append(HoldUpdate(held.payment_hash, state, amount_of(held), min(expiries, default=None)))
    return updates
