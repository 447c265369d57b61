"""Paying once. lightningd's own table of payments decides what happens; an error or a lost reply only makes us read it again.

Over a direct channel we send the one part ourselves, always as group 1, part 0: lightningd refuses a second payment of that name for a hash, or
joins the caller to the first, so that not even two senders who know nothing of each other can pay twice. Otherwise `xpay` finds the way (before
lightningd 24.11: `pay`); it refuses in the same manner while any part is pending or complete, but it may try again by itself for a while after all
its parts have failed. Checked against lightningd 26.06 by `tests/regtest`.

lightningd enters a part in its table before its HTLC is anywhere. If it is killed in between, the part stays pending for ever although nothing was
sent, or will be: no HTLC survives a restart that was not in the database, and what is in the database shows in `listpeerchannels`.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Final

import trio

from nostrain.errors import OutcomeUnknown, RemoteProtocolError, Unavailable
from nostrain.lightning.node import METHOD_NOT_FOUND, OPEN, ClnNode
from nostrain.lightning.replies import Anything, GetLog, ListSendPays, PeerChannel, SendPay, SendPaysWaited
from nostrain.lightning.rpc import ClnError
from nostrain.ports.lightning import PayResult
from nostrain.units import Digest, Msat, is_hex32
from nostrain.wire.bolt11 import Bolt11, parse_bolt11_untrusted

GROUP: Final = 1
LABEL: Final = "nostrain"
REFUSED: Final = frozenset({-32602, 203, 205, 206, 207, 209, 210, 213, 215, 216, 217, 220})
"""Errors of sendpay and xpay that mean: the command is over, and this cannot be paid."""
IN_PROGRESS: Final = frozenset({-3, 200, 201, 219})
"""Errors that mean: this hash is being paid, or was. xpay wraps 200 in -3, which covers other things too: they show by coming back."""
RETRY_FOR_S: Final = 30
"""How long `xpay` may try; after that and `SETTLING_S` more, parts that have all failed have failed for good."""
SETTLING_S: Final = 30
CLTV_MARGIN: Final = 2
"""Blocks that we add to the last HTLC's life: the payee may have seen a block that we have not."""
LOOK_AGAIN_S: Final = 120
POLL_S: Final = 0.5
UNSENT_S: Final = 5.0
"""Between two looks at a payment that was not begun when we looked last, and may have been."""
BREATH_S: Final = 0.05


class Standing(Enum):
    """What lightningd's table says of a payment."""

    ABSENT = "absent"
    PENDING = "pending"
    COMPLETE = "complete"
    FAILED = "failed"
    FAILED_SO_FAR = "failed so far"


async def pay(node: ClnNode, bolt11: str, payment_hash: Digest, amount_msat: Msat, max_final_cltv: int) -> PayResult:
    """See `ports.lightning.Lightning.pay`; an invoice that would hold the money for more than `max_final_cltv` blocks is not paid."""
    try:
        invoice = await checked(node, bolt11, payment_hash, amount_msat, max_final_cltv)
        if invoice is None:
            return PayResult(payment_hash, None)
        return await once(node, payment_hash, lambda: expired(invoice), lambda: send(node, bolt11, invoice, amount_msat))
    except Unavailable as error:
        raise OutcomeUnknown(str(error)) from error


async def ended(node: ClnNode, bolt11: str, payment_hash: Digest, amount_msat: Msat, max_final_cltv: int) -> PayResult:
    """See `ports.tickets.PurchasePayer.ended`: `pay` without sending anything, to the time from which nobody can have begun it."""

    async def nothing() -> bool:
        await trio.sleep(UNSENT_S)
        return False

    try:
        invoice = await checked(node, bolt11, payment_hash, amount_msat, max_final_cltv)
        if invoice is None:
            return PayResult(payment_hash, None)
        return await once(node, payment_hash, lambda: expired(invoice, RETRY_FOR_S + SETTLING_S), nothing)
    except Unavailable as error:
        raise OutcomeUnknown(str(error)) from error


async def once(node: ClnNode, payment_hash: Digest, too_late: Callable[[], bool], send: Callable[[], Awaitable[bool]]) -> PayResult:
    """Join the payment of `payment_hash`, or begin it by `send` if the node knows of none and it is not `too_late`; how it ended.

    `send` tells whether nothing more will come of it. What the node lists is believed, never a reply alone. Raises Unavailable.
    """
    over = False
    while True:
        parts = (await node.read("listsendpays", {"payment_hash": payment_hash}, ListSendPays)).payments
        match judge(parts, time.time(), over=over):
            case Standing.COMPLETE:
                return PayResult(payment_hash, preimage_of(parts, payment_hash))
            case Standing.FAILED:
                return PayResult(payment_hash, None)
            case Standing.PENDING:
                if await gone(node, parts):
                    return PayResult(payment_hash, None)
                await wait_for(node, next(part for part in parts if part.status == "pending"))
            case Standing.FAILED_SO_FAR:
                await wait_for_more(node, payment_hash)
            case Standing.ABSENT:
                if over or too_late():
                    return PayResult(payment_hash, None)
                over = await send()


async def checked(node: ClnNode, bolt11: str, payment_hash: Digest, amount_msat: Msat, max_final_cltv: int) -> Bolt11 | None:
    """The invoice, if it is one that we agreed to pay, on this node's network; None otherwise. Raises Unavailable."""
    try:
        invoice = parse_bolt11_untrusted(bolt11)
    except RemoteProtocolError:
        return None
    _, currency = await node.identity()
    fits = (invoice.payment_hash, invoice.amount_msat, invoice.currency) == (payment_hash, amount_msat, currency)
    return invoice if fits and invoice.min_final_cltv <= max_final_cltv else None


def expired(invoice: Bolt11, since_s: int = 0) -> bool:
    """Whether the payee need not take it any more, since so long at least."""
    return time.time() >= invoice.created_at + invoice.expiry_s + since_s


def judge(parts: Sequence[SendPay], now: float, *, over: bool) -> Standing:
    """What the parts of one payment say together. `over`: the command that sends them has returned, so no more will come."""
    states = {part.status for part in parts}
    if not states:
        return Standing.ABSENT
    if "complete" in states:
        return Standing.COMPLETE
    if states - {"failed"}:
        return Standing.PENDING
    ours = all((part.groupid, part.partid) == (GROUP, 0) for part in parts)
    old = now - max(part.created_at for part in parts) > RETRY_FOR_S + SETTLING_S
    return Standing.FAILED if ours or over or old else Standing.FAILED_SO_FAR


def preimage_of(parts: Sequence[SendPay], payment_hash: Digest) -> str:
    """The proof of payment. Raises OutcomeUnknown when what the node shows is none."""
    for part in parts:
        preimage = part.payment_preimage or ""
        if part.status == "complete" and is_hex32(preimage) and hashlib.sha256(bytes.fromhex(preimage)).hexdigest() == payment_hash:
            return preimage
    raise OutcomeUnknown(f"payment {payment_hash[:8]}: the node calls it complete and has no preimage that fits")


async def gone(node: ClnNode, parts: Sequence[SendPay]) -> bool:
    """Whether all that is pending was pending when lightningd last started, and none of it is an HTLC. Raises Unavailable."""
    payment_hash, pending = parts[0].payment_hash, [part for part in parts if part.status == "pending"]
    try:
        started = float((await node.read("getlog", {"level": "broken"}, GetLog)).created_at)
    except ValueError as error:
        raise Unavailable(f"getlog: {error}") from error
    newest = max((part.created_at for part in pending), default=math.inf)
    # Its times of payments are whole seconds, rounded down: a part of the second in which it started may be of before, or be on its way just now.
    if started <= newest or (started < newest + 1 and time.time() < newest + SETTLING_S):
        return False
    if any(htlc.payment_hash == payment_hash and htlc.direction == "out" for channel in await node.channels() for htlc in channel.htlcs):
        return False
    # An HTLC that ended while we looked has left its channel, but then its part has ended too.
    return (await node.read("listsendpays", {"payment_hash": payment_hash}, ListSendPays)).payments == tuple(parts)


async def wait_for(node: ClnNode, part: SendPay) -> None:
    """Return when the part has ended, however, or after a while: it may be one of several, and `gone`. Raises Unavailable when the node is lost."""
    params = {"payment_hash": part.payment_hash, "groupid": part.groupid, "partid": part.partid, "timeout": LOOK_AGAIN_S}
    try:
        await node.rpc.call("waitsendpay", params, Anything, timeout_s=None)
    except ClnError:
        await trio.sleep(BREATH_S)  # the table says how it ended
    except OutcomeUnknown as error:
        raise Unavailable(str(error)) from error


async def wait_for_more(node: ClnNode, payment_hash: Digest) -> None:
    """Return when lightningd has sent another part of anything, or when no xpay may send more of this. Raises Unavailable."""
    known = await created(node, 0)
    parts = (await node.read("listsendpays", {"payment_hash": payment_hash}, ListSendPays)).payments
    now = time.time()
    if judge(parts, now, over=False) is Standing.FAILED_SO_FAR:
        last = max(part.created_at for part in parts)
        with trio.move_on_after(last + RETRY_FOR_S + SETTLING_S + 1 - now):
            await created(node, known + 1)


async def created(node: ClnNode, at_least: int) -> int:
    """How many parts lightningd has ever sent, once there are so many. Raises Unavailable."""
    params = {"subsystem": "sendpays", "indexname": "created", "nextvalue": at_least}
    try:
        return (await node.rpc.call("wait", params, SendPaysWaited, timeout_s=None if at_least else node.timeout_s)).created
    except (ClnError, OutcomeUnknown) as error:
        raise Unavailable(str(error)) from error


async def find_a_way(node: ClnNode, invoice: str) -> None:
    """Have lightningd pay by whatever way it finds. Raises Unavailable, OutcomeUnknown, ClnError."""
    try:
        await node.rpc.call("xpay", {"invstring": invoice, "retry_for": RETRY_FOR_S}, Anything, timeout_s=None)
    except ClnError as error:
        if error.code != METHOD_NOT_FOUND:
            raise
        await node.rpc.call("pay", {"bolt11": invoice, "retry_for": RETRY_FOR_S}, Anything, timeout_s=None)


async def send(node: ClnNode, bolt11: str, invoice: Bolt11, amount_msat: Msat) -> bool:
    """Send it, or find that lightningd has it already. True: nothing more will be sent, and if its table has nothing, it was refused.

    Raises Unavailable when it could not be sent now, or when that is not known.
    """
    open_channels = [channel for channel in await node.channels(invoice.payee) if channel.state in OPEN and channel.short_channel_id]
    connected = [channel for channel in open_channels if channel.peer_connected]
    if open_channels and not connected:
        raise Unavailable(f"payment {invoice.payment_hash[:8]}: the payee's node {invoice.payee[:8]} is not connected")
    if not connected:
        return await begun(find_a_way(node, bolt11))
    channel = max(connected, key=lambda channel: channel.spendable_msat)
    return await begun(node.ask("sendpay", direct(bolt11, invoice, amount_msat, channel), Anything))


async def begun(sending: Awaitable[object]) -> bool:
    """Wait for `sendpay` or `xpay`. True: nothing more will be sent, and if lightningd's table has nothing, it was refused; False: look again.

    Raises Unavailable when it could not be sent now, or when that is not known.
    """
    try:
        await sending
    except OutcomeUnknown as error:
        raise Unavailable(str(error)) from error
    except ClnError as error:
        if error.code in REFUSED:
            return True
        if error.code not in IN_PROGRESS:
            # Among them 204 of sendpay: the peer went away since we looked, and nothing was entered in the table.
            raise Unavailable(str(error)) from error
        await trio.sleep(POLL_S)
        return False
    return True


def direct(bolt11: str, invoice: Bolt11, amount_msat: Msat, channel: PeerChannel) -> dict[str, object]:
    """sendpay's parameters for one HTLC over our own channel."""
    hop = {
        "id": invoice.payee,
        "channel": channel.short_channel_id,
        "direction": channel.direction,
        "amount_msat": amount_msat,
        "delay": invoice.min_final_cltv + CLTV_MARGIN,
        "style": "tlv",
    }
    params: dict[str, object] = {
        "route": [hop],
        "payment_hash": invoice.payment_hash,
        "payment_secret": invoice.payment_secret,
        "amount_msat": amount_msat,
        "bolt11": bolt11,
        "label": LABEL,
        "groupid": GROUP,
        "partid": 0,
    }
    return params | ({"payment_metadata": invoice.metadata} if invoice.metadata else {})
