"""The nodes of a simnet, what each remembers, and the network that joins them: channels, block clock, faults."""

from __future__ import annotations

import hashlib
import itertools
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

import msgspec
import trio
from coincurve import PrivateKey

from nostrain.devnet.simnet.chain import SPARE_SAT, Chain
from nostrain.devnet.simnet.channels import DEFAULT_SLOTS, Channel, Htlc, HtlcRefused, Onion
from nostrain.units import BlockHeight, Digest, Msat

FIRST_BLOCK: Final = BlockHeight(800_000)
HOLD_EXPIRY_DEADLINE: Final = 24
"""Blocks before an HTLC's expiry at which our hold plugin cancels (`hold-expiry-deadline`)."""
MPP_TIMEOUT_S: Final = 60


class InvoiceState(Enum):
    """Core Lightning's states of an invoice."""

    UNPAID = "unpaid"
    PAID = "paid"
    EXPIRED = "expired"


def is_bolt12(text: str | None) -> bool:
    """Whether the text of an invoice is a BOLT 12 one."""
    return text is not None and text.startswith("lni1")


@dataclass
class Invoice:
    """An invoice of lightningd; `bolt11` is its text, also of one that was made from a BOLT 12 offer."""

    index: int
    label: str
    bolt11: str
    description: str
    payment_hash: Digest
    payment_secret: str
    preimage: str
    amount_msat: Msat | None
    expires_at: int
    min_final_cltv: int
    paid_at: int | None = None
    updated_index: int | None = None
    pay_index: int | None = None
    received_msat: Msat | None = None

    @property
    def state(self) -> InvoiceState:
        """Unpaid until its time is over."""
        if self.paid_at is not None:
            return InvoiceState.PAID
        return InvoiceState.EXPIRED if time.time() >= self.expires_at else InvoiceState.UNPAID


@dataclass
class HoldHtlc:
    """A row of the hold plugin's table `htlcs`."""

    id: int
    state: str
    htlc: Htlc
    created_at: float

    def fail(self, code: Onion) -> None:
        """Send it back, as the node that it was for."""
        self.htlc.channel.fail(self.htlc, HtlcRefused(code, "reply from remote", at_destination=True))


@dataclass
class Hold:
    """A row of the hold plugin's table `invoices`. `pending` is what it holds in memory: the HTLCs that wait for an answer."""

    id: int
    payment_hash: Digest
    bolt11: str
    amount_msat: Msat
    payment_secret: str
    min_cltv: int
    created_at: float
    explicit_min_cltv: int | None = None
    state: str = "unpaid"
    preimage: str | None = None
    settled_at: float | None = None
    htlcs: list[HoldHtlc] = field(default_factory=list)
    pending: list[HoldHtlc] = field(default_factory=list)

    def expires_in(self, height: BlockHeight) -> float:
        """Blocks until the first of the pending HTLCs runs out."""
        return min((entry.htlc.cltv_expiry - height for entry in self.pending), default=math.inf)

    def accepted_msat(self) -> Msat:
        """What has arrived and is not gone again."""
        return Msat(sum(entry.htlc.amount_msat for entry in self.htlcs if entry.state in ("accepted", "paid")))

    def cancel(self) -> None:
        """Fail what is pending and close the invoice."""
        pending, self.pending, self.state = self.pending, [], "cancelled"
        for entry in self.htlcs:
            entry.state = "cancelled" if entry.state == "accepted" else entry.state
        for entry in pending:
            entry.fail(Onion.INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS)

    def settle(self, preimage: str) -> None:
        """Fulfil what is pending."""
        pending, self.pending = self.pending, []
        self.state, self.preimage, self.settled_at = "paid", preimage, time.time()
        for entry in pending:
            entry.state = "paid"
            entry.htlc.channel.fulfil(entry.htlc, preimage)

    def drop_partial_set(self, now: float) -> None:
        """Fail the parts of a payment whose rest did not come within `MPP_TIMEOUT_S`."""
        for entry in [entry for entry in self.pending if self.state == "unpaid" and now - entry.created_at > MPP_TIMEOUT_S]:
            self.pending.remove(entry)
            entry.state = "cancelled"
            entry.fail(Onion.MPP_TIMEOUT)


class PaymentError(msgspec.Struct, frozen=True):
    """Why a payment failed: lightningd's code, the onion's, and where on the path."""

    code: int
    onion: Onion
    detail: str
    where: dict[str, object]


@dataclass
class Indexes:
    """How many things of each subsystem were created, updated and deleted; `changed` is set, and replaced, whenever there are more."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    last: dict[tuple[str, str], dict[str, object]] = field(default_factory=dict)
    changed: trio.Event = field(default_factory=trio.Event)

    def bump(self, subsystem: str, index: str, **what: object) -> int:
        """One more; the number that it has. `what` is told to who waits for it, without what is None."""
        self.counts[subsystem, index] += 1
        self.last[subsystem, index] = {name: value for name, value in what.items() if value is not None}
        changed, self.changed = self.changed, trio.Event()
        changed.set()
        return self.counts[subsystem, index]


@dataclass
class Payment:
    """A row of lightningd's table `payments`: one part of a payment."""

    id: int
    payment_hash: Digest
    partid: int
    groupid: int
    amount_msat: Msat
    total_msat: Msat
    destination: str
    created_at: int
    updated_index: int | None = None
    bolt11: str | None = None
    label: str | None = None
    description: str | None = None
    status: str = "pending"
    preimage: str | None = None
    completed_at: int | None = None
    error: PaymentError | None = None
    ended: trio.Event = field(default_factory=trio.Event)


@dataclass
class Faults:
    """How a node misbehaves. `stalled` is set while it answers nothing; the counters count down."""

    stalled: bool = False
    resumed: trio.Event = field(default_factory=trio.Event)
    lose_replies: Counter[str] = field(default_factory=Counter)
    lose_requests: Counter[str] = field(default_factory=Counter)
    fail_parts: int = 0
    forget_parts: int = 0


@dataclass(eq=False)
class Node:
    """One node. Its key follows from its name: there is nothing here to steal."""

    name: str
    key: PrivateKey
    up: bool = True
    started_at: float = field(default_factory=time.time)
    invoices: list[Invoice] = field(default_factory=list)
    offers: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    holds: dict[Digest, Hold] = field(default_factory=dict)
    payments: list[Payment] = field(default_factory=list)
    parts: dict[Digest, list[tuple[float, Htlc]]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    indexes: Indexes = field(default_factory=Indexes)
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def id(self) -> str:
        """The node id: its compressed public key."""
        return str(self.key.public_key.format().hex())


class Network:
    """A star: one channel from the first node to each other one. `funds` in msat; the first node's are spread evenly over its channels.

    The first node has SPARE_SAT on the chain besides.
    """

    def __init__(self, funds: Mapping[str, Msat], slots: int = DEFAULT_SLOTS) -> None:
        self.height = FIRST_BLOCK
        self.block = trio.Event()
        keys = {name: PrivateKey(hashlib.sha256(b"nostrain/simnet/key/" + name.encode()).digest()) for name in funds}
        self.nodes = {name: Node(name, key) for name, key in keys.items()}
        self.by_id = {node.id: node for node in self.nodes.values()}
        hub, *others = funds
        share, rest = divmod(funds[hub], max(1, len(others)))
        self.channels = [
            Channel((hub, name), f"{100 + index}x1x0", {hub: Msat(share + rest if index == 0 else share), name: funds[name]}, slots)
            for index, name in enumerate(others)
        ]
        self.slots = slots
        self.chain = Chain()
        self.chain.fund(hub, Msat(SPARE_SAT * 1000), FIRST_BLOCK)
        self._total = sum(funds.values()) + self.chain.total()

    @property
    def total_msat(self) -> int:
        """What is in channels."""
        return sum(channel.total_msat for channel in self.channels)

    def channels_of(self, name: str) -> list[Channel]:
        """Every channel with `name` at one end, those with one peer together."""
        found = [channel for channel in self.channels if name in channel.ends]
        peers = list(dict.fromkeys(channel.peer(name) for channel in found))
        return sorted(found, key=lambda channel: peers.index(channel.peer(name)))

    def check(self) -> None:
        """What went in is still there."""
        for channel in self.channels:
            channel.check()
        assert self.total_msat + self.chain.total() + self.chain.gone_msat == self._total

    def mine(self, blocks: int) -> None:
        """Let so many blocks pass, one after the other: hold plugins cancel what comes near its expiry, the chain takes what reached it."""
        for _ in range(blocks):
            self.height = BlockHeight(self.height + 1)
            self.confirm()
            for node in self.nodes.values():
                if node.up:
                    self.cancel_expiring(node)
            for channel in self.channels:
                for htlc in [htlc for htlc in channel.htlcs if self.height >= htlc.cltv_expiry]:
                    channel.closed = True
                    channel.fail(htlc, HtlcRefused(Onion.PERMANENT_CHANNEL_FAILURE, "timed out"))
        mined, self.block = self.block, trio.Event()
        mined.set()
        self.check()

    def confirm(self) -> None:
        """A block takes what waits; channels whose funding it has are open."""
        for index, transaction in enumerate(self.chain.confirm(self.height), start=1):
            for channel in self.channels:
                if channel.pending and channel.funding_txid == transaction.txid:
                    channel.pending, channel.short_channel_id = False, f"{self.height}x{index}x0"
                if channel.splice == transaction.txid:
                    channel.confirm_splice(f"{self.height}x{index}x1")

    def start(self, node: Node) -> None:
        """Bring a node up: HTLCs that are gone do not come back to its hold plugin, and blocks that it slept through reach it now."""
        node.up, node.faults, node.started_at = True, Faults(), time.time()
        for hold in node.holds.values():
            hold.pending = [entry for entry in hold.pending if entry.htlc in entry.htlc.channel.htlcs]
        self.cancel_expiring(node)

    def cancel_expiring(self, node: Node) -> None:
        """What the hold plugin does at each block that its node tells it of."""
        for hold in node.holds.values():
            if hold.expires_in(self.height) <= HOLD_EXPIRY_DEADLINE:
                hold.cancel()
