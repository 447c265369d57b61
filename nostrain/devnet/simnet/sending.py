"""Payments out of a node: what may be sent again and what not, paths, and how an attempt ends.

Source: Core Lightning `lightningd/pay.c` (`check_progress`, `send_payment_core`, `remote_routing_failure`) and `plugins/xpay`.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import msgspec

from nostrain.devnet.simnet.channels import Channel, HtlcRefused, Onion
from nostrain.devnet.simnet.nodes import Network, Node, Payment, PaymentError, is_bolt12
from nostrain.devnet.simnet.receiving import receive
from nostrain.devnet.simnet.rpc import Json, RpcFailure
from nostrain.units import BlockHeight, Digest, Msat

PAY_IN_PROGRESS: Final = 200
PAY_RHASH_ALREADY_USED: Final = 201
PAY_DESTINATION_PERM_FAIL: Final = 203
PAY_TRY_OTHER_ROUTE: Final = 204
PAY_ROUTE_NOT_FOUND: Final = 205
CLTV_DELTA: Final = 34
"""lightningd's default `cltv-delta` of a forwarding node."""
MAX_CLTV: Final = 2016
"""lightningd's `max-locktime-blocks`: the furthest that an HTLC may expire."""
PERM: Final = 0x4000


class Hop(msgspec.Struct, frozen=True):
    """One channel of a path, the nodes at its ends, and how many blocks its HTLC lives beyond the next block."""

    channel: Channel
    offerer: Node
    receiver: Node
    delay: int


class Part(msgspec.Struct, frozen=True):
    """What is to be sent."""

    payment_hash: Digest
    payment_secret: str
    amount_msat: Msat
    total_msat: Msat
    partid: int
    groupid: int
    destination: Node
    bolt11: str | None = None
    label: str | None = None
    description: str | None = None


def payments_of(node: Node, payment_hash: Digest) -> list[Payment]:
    """Every part ever sent for the hash."""
    return [payment for payment in node.payments if payment.payment_hash == payment_hash]


def last_group(node: Node, payment_hash: Digest) -> int:
    """The highest group of parts, 0 if there is none."""
    return max((payment.groupid for payment in payments_of(node, payment_hash)), default=0)


def earlier(node: Node, part: Part) -> Payment | None:
    """The earlier payment that answers for `part`, or None if it may be sent. Raises RpcFailure if it may not."""
    complete, pending = False, 0
    for payment in payments_of(node, part.payment_hash):
        if payment.status == "complete":
            complete = True
            if payment.partid == part.partid:
                require_same(payment, part, "succeeded")
                return payment
        elif payment.status == "pending":
            if payment.groupid != part.groupid:
                message = f"Payment with groupid={payment.groupid} still in progress, cannot retry before that completes."
                raise RpcFailure(PAY_IN_PROGRESS, message)
            if bool(payment.partid) != bool(part.partid):
                raise RpcFailure(PAY_IN_PROGRESS, f"Already have {'parallel' if payment.partid else 'non-parallel'} payment in progress")
            if payment.partid == part.partid:
                require_same(payment, part, "pending")
                return payment
            pending += payment.amount_msat
        if (payment.partid, payment.groupid) == (part.partid, part.groupid):
            raise RpcFailure(PAY_RHASH_ALREADY_USED, f"There already is a payment with payment_hash={part.payment_hash}")
    if complete:
        raise RpcFailure(PAY_RHASH_ALREADY_USED, "Already succeeded other parts")
    if pending >= part.total_msat:
        raise RpcFailure(PAY_IN_PROGRESS, f"Already have {pending}msat of {part.total_msat}msat payments in progress")
    return None


def require_same(payment: Payment, part: Part, state: str) -> None:
    """Raises RpcFailure when the earlier payment was for something else."""
    if payment.amount_msat != part.amount_msat:
        message = f"Already {state} with amount {payment.amount_msat}msat (not {part.amount_msat}msat)"
        raise RpcFailure(PAY_RHASH_ALREADY_USED, message)
    if payment.destination != part.destination.id:
        raise RpcFailure(PAY_RHASH_ALREADY_USED, f"Already {state} to {payment.destination}")


def send(network: Network, node: Node, part: Part, hops: Sequence[Hop]) -> Payment:
    """Send `part` along `hops`, unless that was done before. How it ends is in the payment that is returned; RpcFailure: nothing was sent."""
    known = earlier(node, part)
    if known is not None:
        return known
    first = hops[0].channel
    if not network.nodes[first.peer(node.name)].up:
        code = Onion.TEMPORARY_CHANNEL_FAILURE
        data = erring(hops, 0) | {"failcode": code, "failcodename": code.wire_name}
        raise RpcFailure(PAY_TRY_OTHER_ROUTE, "failed: WIRE_TEMPORARY_CHANNEL_FAILURE (First peer not ready)", data)
    payment = Payment(
        id=node.indexes.bump("sendpays", "created", status="pending", **named(part)),
        payment_hash=part.payment_hash,
        partid=part.partid,
        groupid=part.groupid,
        amount_msat=part.amount_msat,
        total_msat=part.total_msat,
        destination=part.destination.id,
        created_at=int(time.time()),
        bolt11=part.bolt11,
        label=part.label,
        description=part.description,
    )
    node.payments.append(payment)

    def ended(preimage: str | None = None, error: HtlcRefused | None = None) -> None:
        end(payment, hops, preimage, error)
        payment.updated_index = node.indexes.bump("sendpays", "updated", status=payment.status, **named(part))

    if node.faults.fail_parts > 0:
        node.faults.fail_parts -= 1
        ended(error=HtlcRefused(Onion.TEMPORARY_CHANNEL_FAILURE, "injected fault"))
    elif node.faults.forget_parts > 0:
        node.faults.forget_parts -= 1
    else:
        offer_along(network, part, hops, ended, lambda error: ended(error=error))
    network.check()
    return payment


def offer_along(
    network: Network, part: Part, hops: Sequence[Hop], settled: Callable[[str], None], failed: Callable[[HtlcRefused], None]
) -> None:
    """Add an HTLC on every channel of the path, each answering for the one before it; what arrives is the destination's to decide."""
    base = network.height + 1
    for index, hop in enumerate(hops):
        expiry = BlockHeight(base + hop.delay)
        try:
            if index and expiry - network.height > MAX_CLTV:  # lightningd looks at what it forwards, not at what it sends itself
                raise HtlcRefused(Onion.EXPIRY_TOO_FAR, "CLTV expiry too far")
            if index and not hop.receiver.up:
                raise HtlcRefused(Onion.TEMPORARY_CHANNEL_FAILURE, "reply from remote")
            htlc = hop.channel.offer(hop.offerer.name, part.amount_msat, part.payment_hash, expiry, settled, failed)
        except HtlcRefused as refusal:
            refusal.hop = index
            failed(refusal)
            return
        settled, failed = partial(hop.channel.fulfil, htlc), partial(hop.channel.fail, htlc)
    receive(network, part.destination, htlc, part.payment_secret, part.total_msat)


def end(payment: Payment, hops: Sequence[Hop], preimage: str | None, error: HtlcRefused | None) -> None:
    """Record how the payment went and wake who waits for it."""
    assert payment.status == "pending", "a payment ends once"
    payment.completed_at = int(time.time())
    if error is None:
        payment.status, payment.preimage = "complete", preimage
    else:
        payment.status = "failed"
        final = error.at_destination and error.code & PERM
        code = PAY_DESTINATION_PERM_FAIL if final else PAY_TRY_OTHER_ROUTE
        payment.error = PaymentError(code, error.code, error.detail, erring(hops, len(hops) if error.at_destination else error.hop))
    payment.ended.set()


def named(part: Part) -> Json:
    """What `wait` tells of a part."""
    return {"partid": part.partid, "groupid": part.groupid, "payment_hash": part.payment_hash}


def erring(hops: Sequence[Hop], index: int) -> Json:
    """Where a payment failed, as lightningd tells it: 0 is the node itself, and the destination is blamed with the last channel."""
    hop = hops[min(index, len(hops) - 1)]
    ends = [hop.offerer.id, hop.receiver.id]
    return {
        "erring_index": index,
        "erring_node": ends[index > len(hops) - 1],
        "erring_channel": hop.channel.short_channel_id,
        "erring_direction": int(ends[0] > ends[1]),
    }


def shortest_path(network: Network, source: Node, destination: Node, amount_msat: Msat) -> Iterable[tuple[Channel, Node]] | None:
    """Channels from `source` to `destination` that can carry the amount now, with the node that offers on each; None if there are none."""
    paths: dict[str, list[tuple[Channel, Node]]] = {source.name: []}
    queue = [source.name]
    for name in queue:
        for channel in network.channels_of(name):
            peer = channel.peer(name)
            if peer not in paths and channel.takes_htlcs and channel.spendable(name) >= amount_msat and network.nodes[peer].up:
                paths[peer] = [*paths[name], (channel, network.nodes[name])]
                queue.append(peer)
    return paths.get(destination.name)


def random_group() -> int:
    """xpay's group ids."""
    return secrets.randbelow(2**63 - 1) + 1


def fields(payment: Payment) -> Json:
    """A payment as lightningd lists it."""
    listed: Json = {
        "created_index": payment.id,
        "id": payment.id,
        "payment_hash": payment.payment_hash,
        "groupid": payment.groupid,
        "updated_index": payment.updated_index,
        "partid": payment.partid or None,
        "destination": payment.destination,
        "amount_msat": payment.amount_msat,
        "amount_sent_msat": payment.amount_msat,
        "created_at": payment.created_at,
        "completed_at": payment.completed_at,
        "status": payment.status,
        "payment_preimage": payment.preimage,
        "label": payment.label,
        "bolt12" if is_bolt12(payment.bolt11) else "bolt11": payment.bolt11,
        "description": payment.description,
    }
    return {name: value for name, value in listed.items() if value is not None}


def result(payment: Payment) -> Json:
    """What `waitsendpay` says of a payment that has ended. Raises RpcFailure."""
    if payment.error is None:
        return fields(payment)
    error = payment.error
    data = fields(payment) | {"failcode": int(error.onion), "failcodename": error.onion.wire_name} | error.where
    raise RpcFailure(error.code, f"failed: {error.onion.wire_name} ({error.detail})", data)
