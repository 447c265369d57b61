"""Hundreds of random steps by everybody, crashes and blocks among them: money is conserved, and who paid and who was paid agree."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

from nostrain.devnet.simnet.channels import HtlcRefused
from nostrain.devnet.simnet.hold import HoldMethods
from nostrain.devnet.simnet.nodes import Network, Node
from nostrain.devnet.simnet.payments import PaymentMethods
from nostrain.devnet.simnet.rpc import RpcFailure
from nostrain.units import Digest, Msat
from nostrain.wire.bolt11 import parse_bolt11_untrusted

STEPS = 400
FUNDS = {"c": Msat(60_000_000), "w": Msat(1_000_000), "v": Msat(2_000_000), "u": Msat(0)}


class Chaos:
    """Draws steps and takes them; refusals are part of the game."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.network = rng, Network(FUNDS, slots=4)
        self.preimages: dict[Digest, str] = {}
        self.invoices: list[str] = []
        self.taken: dict[str, int] = {}

    def node(self) -> Node:
        return self.rng.choice([node for node in self.network.nodes.values() if node.up])

    def call(self, table: type[HoldMethods] | type[PaymentMethods], node: Node, method: str, **params: object) -> Any:
        entry = table(self.network, node).table()[method]
        return entry.run(entry.arguments(params))

    def invoice(self) -> None:
        preimage = self.rng.randbytes(32)
        payment_hash = Digest(hashlib.sha256(preimage).hexdigest())
        self.preimages[payment_hash] = preimage.hex()
        amount = self.rng.choice([1, 1_000, 400_000, 9_000_000])
        self.invoices.append(self.call(HoldMethods, self.node(), "holdinvoice", payment_hash=payment_hash, amount=amount)["bolt11"])

    def pay(self) -> None:
        self.call(PaymentMethods, self.node(), "xpay", invstring=self.rng.choice(self.invoices)).close()

    def settle(self) -> None:
        terms = parse_bolt11_untrusted(self.rng.choice(self.invoices))
        owner = self.network.by_id[terms.payee]
        if owner.up:
            self.call(HoldMethods, owner, "settleholdinvoice", preimage=self.preimages[terms.payment_hash])

    def cancel(self) -> None:
        terms = parse_bolt11_untrusted(self.rng.choice(self.invoices))
        owner = self.network.by_id[terms.payee]
        if owner.up:
            self.call(HoldMethods, owner, "cancelholdinvoice", payment_hash=terms.payment_hash)

    def mine(self) -> None:
        self.network.mine(self.rng.choice([1, 1, 5, 40]))

    def crash(self) -> None:
        node = self.rng.choice(list(self.network.nodes.values()))
        if not node.up:
            self.network.start(node)
        elif sum(other.up for other in self.network.nodes.values()) > 1:
            node.up = False

    def step(self) -> None:
        steps: list[Callable[[], None]] = [
            self.invoice,
            self.pay,
            self.pay,
            self.pay,
            self.settle,
            self.settle,
            self.cancel,
            self.mine,
            self.crash,
        ]
        chosen = self.rng.choice(steps) if self.invoices else self.invoice
        try:
            chosen()
        except (RpcFailure, HtlcRefused):
            self.taken["refused"] = self.taken.get("refused", 0) + 1
        else:
            self.taken[chosen.__name__] = self.taken.get(chosen.__name__, 0) + 1
        self.network.check()

    def agree(self) -> None:
        """Every complete payment is a settled hold of the same amount, the other way round too, and the balances follow."""
        due = dict(FUNDS)
        paid: set[Digest] = set()
        for node in self.network.nodes.values():
            for payment in node.payments:
                if payment.status == "complete":
                    assert payment.payment_hash not in paid
                    paid.add(payment.payment_hash)
                    due[node.name] = Msat(due[node.name] - payment.amount_msat)
                    receiver = self.network.by_id[payment.destination]
                    assert receiver.holds[payment.payment_hash].state == "paid"
                    due[receiver.name] = Msat(due[receiver.name] + payment.amount_msat)
        assert paid == {hold.payment_hash for node in self.network.nodes.values() for hold in node.holds.values() if hold.state == "paid"}
        assert due == {name: sum(channel.to_us[name] for channel in self.network.channels_of(name)) for name in FUNDS}


def test_anything_may_happen_and_the_money_is_still_there(rng: random.Random) -> None:
    chaos = Chaos(rng)
    for _ in range(STEPS):
        chaos.step()
        chaos.agree()
    assert chaos.taken["settle"] > 5
    for node in chaos.network.nodes.values():
        chaos.network.start(node)
    chaos.network.mine(500)
    chaos.agree()
    assert [htlc for channel in chaos.network.channels for htlc in channel.htlcs] == []
    assert {payment.status for node in chaos.network.nodes.values() for payment in node.payments} <= {"complete", "failed"}
