"""Core Lightning's methods about payments, with the names, fields and error codes of its release 26.06."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any, Final

import trio

from nostrain.devnet.simnet import sending
from nostrain.devnet.simnet.channels import Onion
from nostrain.devnet.simnet.invoices import parse_ours
from nostrain.devnet.simnet.methods import NodeMethods
from nostrain.devnet.simnet.nodes import Payment
from nostrain.devnet.simnet.offers import payable
from nostrain.devnet.simnet.params import ListSendPays, RouteHop, SendPay, WaitSendPay, XPay
from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, Method, RpcFailure
from nostrain.devnet.simnet.sending import Hop, Part
from nostrain.units import Digest, Msat, is_hex32

PAY_INVOICE_EXPIRED: Final = 207
PAY_NO_SUCH_PAYMENT: Final = 208
PAY_UNSPECIFIED_ERROR: Final = 209
"""xpay's, when an attempt failed and no other way was left."""
PAY_ALREADY_PAID: Final = 219
PLUGIN_ERROR: Final = -3


class PaymentMethods(NodeMethods):
    """On one node."""

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "sendpay": Method(SendPay, self.sendpay),
            "waitsendpay": Method(WaitSendPay, self.waitsendpay),
            "listsendpays": Method(ListSendPays, self.listsendpays),
            "xpay": Method(XPay, self.xpay),
        }

    def sendpay(self, asked: SendPay) -> Json:
        """Send along a given route; the first hop's channel must be ours."""
        if not asked.route:
            if asked.amount_msat is None:
                raise RpcFailure(INVALID_PARAMS, "Self-payment requires amount_msat")
            raise RpcFailure(sending.PAY_DESTINATION_PERM_FAIL, f"Unknown invoice {asked.payment_hash}")
        last = asked.route[-1]
        if asked.partid and (asked.amount_msat is None or not asked.payment_secret):
            raise RpcFailure(
                INVALID_PARAMS, "Must specify msatoshi with partid" if asked.payment_secret else "partid requires payment_secret"
            )
        if asked.amount_msat is not None and not asked.partid and asked.amount_msat != last.amount_msat:
            raise RpcFailure(INVALID_PARAMS, "Do not specify msatoshi without partid: it must be exactly the final amount")
        payment_hash = Digest(asked.payment_hash)
        group = sending.last_group(self.node, payment_hash) + 1 if asked.groupid is None else asked.groupid
        destination = self.network.by_id.get(last.id)
        hops = self.hops(asked.route)
        if destination is None or hops is None:
            code = Onion.UNKNOWN_NEXT_PEER
            data = {"erring_index": 0, "failcode": code, "failcodename": code.wire_name, "erring_node": self.node.id}
            raise RpcFailure(sending.PAY_TRY_OTHER_ROUTE, "No connection to first peer found", data)
        part = Part(
            payment_hash=payment_hash,
            payment_secret=asked.payment_secret or "",
            amount_msat=Msat(last.amount_msat),
            total_msat=Msat(last.amount_msat if asked.amount_msat is None else asked.amount_msat),
            partid=asked.partid,
            groupid=group,
            destination=destination,
            bolt11=asked.bolt11,
            label=asked.label,
            description=asked.description,
        )
        known = sending.earlier(self.node, part)
        payment = known or sending.send(self.network, self.node, part, hops)
        # lightningd answers before its peer does: a payment that failed meanwhile is reported as pending.
        shown = sending.fields(payment)
        if payment.status == "complete" and known is not None:
            return shown
        for later in ("payment_preimage", "completed_at", "updated_index"):
            shown.pop(later, None)
        return shown | {"status": "pending", "message": "Monitor status with listpays or waitsendpay"}

    def hops(self, route: list[RouteHop]) -> list[Hop] | None:
        """The route on our channels; None when it does not exist."""
        offerer, hops = self.node, []
        for hop in route:
            receiver = self.network.by_id.get(hop.id)
            channels = [
                channel
                for channel in self.network.channels_of(offerer.name)
                if channel.takes_htlcs
                and receiver is not None
                and channel.peer(offerer.name) == receiver.name
                and hop.channel in (channel.short_channel_id, "0x0x0")
            ]
            if not channels or receiver is None:
                return None
            hops.append(Hop(channels[0], offerer, receiver, hop.delay))
            offerer = receiver
        return hops

    async def waitsendpay(self, asked: WaitSendPay) -> Json:
        """How a part ends."""
        payment_hash = Digest(asked.payment_hash)
        group = sending.last_group(self.node, payment_hash) if asked.groupid is None else asked.groupid
        payment = next(
            (
                payment
                for payment in sending.payments_of(self.node, payment_hash)
                if (payment.partid, payment.groupid) == (asked.partid, group)
            ),
            None,
        )
        if payment is None:
            raise RpcFailure(PAY_NO_SUCH_PAYMENT, f"Never attempted payment part {asked.partid} for '{payment_hash}'")
        with trio.move_on_after(float("inf") if asked.timeout is None else asked.timeout):
            await payment.ended.wait()
        if not payment.ended.is_set():
            raise RpcFailure(sending.PAY_IN_PROGRESS, "Timed out while waiting")
        return sending.result(payment)

    def listsendpays(self, asked: ListSendPays) -> Json:
        """Every part, those of one hash, or those in one state; with a hash, the state is not looked at, as in lightningd."""
        if asked.bolt11 is not None and asked.payment_hash is not None:
            raise RpcFailure(INVALID_PARAMS, "Can only specify one of {bolt11} or {payment_hash}")
        if asked.status not in (None, "pending", "complete", "failed"):
            raise RpcFailure(INVALID_PARAMS, f"status: should be an invoice status: invalid token '{asked.status}'")
        if asked.payment_hash is not None and not is_hex32(asked.payment_hash):
            raise RpcFailure(INVALID_PARAMS, f"payment_hash: should be a 32 byte hex value: invalid token '{asked.payment_hash}'")
        wanted = asked.payment_hash if asked.bolt11 is None else parse_ours(asked.bolt11).payment_hash
        listed = [
            sending.fields(payment)
            for payment in self.node.payments
            if (wanted == payment.payment_hash if wanted is not None else asked.status in (None, payment.status))
        ]
        return {"payments": listed}

    def xpay(self, asked: XPay) -> Coroutine[Any, Any, Json]:
        """Find a path and pay; the result is there when that has ended."""
        return self.finish_xpay(self.start_xpay(asked))

    async def finish_xpay(self, payment: Payment) -> Json:
        """How it went. Raises RpcFailure."""
        await payment.ended.wait()
        if payment.error is not None:
            code = payment.error.code if payment.error.code != sending.PAY_TRY_OTHER_ROUTE else PAY_UNSPECIFIED_ERROR
            said = "Destination said it doesn't know invoice: " if code == sending.PAY_DESTINATION_PERM_FAIL else "Failed: "
            raise RpcFailure(code, said + payment.error.onion.wire_name.removeprefix("WIRE_").lower())
        return {
            "payment_preimage": payment.preimage,
            "failed_parts": 0,
            "successful_parts": 1,
            "amount_msat": payment.amount_msat,
            "amount_sent_msat": payment.amount_msat,
        }

    def start_xpay(self, asked: XPay) -> Payment:
        """Send what xpay sends. Raises RpcFailure."""
        terms = payable(asked.invstring)
        amount = terms.amount_msat if terms.amount_msat is not None else asked.amount_msat
        if amount is None or (terms.amount_msat is not None and asked.amount_msat is not None):
            raise RpcFailure(INVALID_PARAMS, "amount_msat is needed for an invoice without an amount, and only for that")
        if time.time() > terms.created_at + terms.expiry_s:
            raise RpcFailure(PAY_INVOICE_EXPIRED, "Invoice expired")
        known = {payment.status for payment in sending.payments_of(self.node, terms.payment_hash)}
        if "complete" in known:
            raise RpcFailure(PAY_ALREADY_PAID, "Already paid this invoice successfully")
        if "pending" in known:
            raise RpcFailure(PLUGIN_ERROR, "Unexpected injectpaymentonion error 200")
        destination = self.network.by_id.get(terms.payee)
        path = destination and sending.shortest_path(self.network, self.node, destination, Msat(amount))
        if not path or destination is None:
            raise RpcFailure(sending.PAY_ROUTE_NOT_FOUND, "Failed: We could not find a usable set of paths.")
        links = list(path)
        delays = [terms.min_final_cltv + sending.CLTV_DELTA * rest for rest in reversed(range(len(links)))]
        hops = [
            Hop(channel, offerer, self.network.nodes[channel.peer(offerer.name)], delay)
            for (channel, offerer), delay in zip(links, delays, strict=True)
        ]
        part = Part(
            payment_hash=terms.payment_hash,
            payment_secret=terms.payment_secret,
            amount_msat=Msat(amount),
            total_msat=Msat(amount),
            partid=1,
            groupid=sending.random_group(),
            destination=destination,
            bolt11=asked.invstring,
            label=asked.label,
        )
        return sending.send(self.network, self.node, part, hops)
