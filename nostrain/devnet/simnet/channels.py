"""Channels and their HTLCs (BOLT 2): balances, 1 % reserve, slots. Every change asserts that no millisatoshi came or went.

As in lightningd, an offered HTLC stays in its sender's balance until it is fulfilled; `spendable` leaves it out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from nostrain.units import BlockHeight, Digest, Msat

DEFAULT_SLOTS: Final = 30
"""Core Lightning's `max-concurrent-htlcs`."""
MAX_SLOTS: Final = 483
"""BOLT 2's limit."""
RESERVE_PERCENT: Final = 1


class Onion(IntEnum):
    """The failure codes of BOLT 4 that occur here, named as lightningd names them."""

    TEMPORARY_CHANNEL_FAILURE = 0x1007
    UNKNOWN_NEXT_PEER = 0x400A
    INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS = 0x400F
    PERMANENT_CHANNEL_FAILURE = 0x4008
    EXPIRY_TOO_FAR = 0x0015
    MPP_TIMEOUT = 0x0017

    @property
    def wire_name(self) -> str:
        """`WIRE_…`."""
        return f"WIRE_{self.name}"


class HtlcRefused(Exception):
    """A channel does not take an HTLC, or a node failed it; `at_destination` when the one that it was for did, else `hop` says which channel."""

    def __init__(self, code: Onion, detail: str, *, at_destination: bool = False) -> None:
        self.code, self.detail, self.at_destination = code, detail, at_destination
        self.hop = 0
        super().__init__(detail)


@dataclass(eq=False)
class Htlc:
    """One HTLC on one channel. `settled` and `failed` are called once, when it is gone."""

    channel: Channel
    offerer: str
    id: int
    amount_msat: Msat
    payment_hash: Digest
    cltv_expiry: BlockHeight
    settled: Callable[[str], None]
    failed: Callable[[HtlcRefused], None]


@dataclass(eq=False)
class Channel:
    """A channel between two nodes, by name; the first is its opener. `closed`: an HTLC ran out, and it went to the chain.

    `pending`: its funding transaction waits for a block; until then it has no short channel id. `splice`: so does one that takes money out of it.
    """

    ends: tuple[str, str]
    short_channel_id: str
    to_us: dict[str, Msat]
    slots: int = DEFAULT_SLOTS
    closed: bool = False
    pending: bool = False
    private: bool = False
    funding_txid: str = ""
    funding_outnum: int = 0
    splice: str | None = None
    htlcs: list[Htlc] = field(default_factory=list)
    offered_count: dict[str, int] = field(default_factory=dict)
    total_msat: Msat = field(init=False)
    channel_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.total_msat = Msat(sum(self.to_us.values()))
        self.funding_txid = self.funding_txid or hashlib.sha256(b"funding" + self.short_channel_id.encode()).hexdigest()
        self.channel_id = hashlib.sha256(self.funding_txid.encode()).hexdigest()

    @property
    def state(self) -> str:
        """As lightningd calls it."""
        if self.closed:
            return "ONCHAIN"
        if self.pending:
            return "CHANNELD_AWAITING_LOCKIN"
        return "CHANNELD_NORMAL" if self.splice is None else "CHANNELD_AWAITING_SPLICE"

    @property
    def takes_htlcs(self) -> bool:
        """Whether it can carry payments."""
        return not self.closed and not self.pending

    @property
    def reserve_msat(self) -> Msat:
        """What each side must keep."""
        return Msat(self.total_msat * RESERVE_PERCENT // 100)

    def peer(self, name: str) -> str:
        """The other end."""
        return self.ends[1] if name == self.ends[0] else self.ends[0]

    def offered(self, name: str) -> Msat:
        """The sum of the HTLCs that `name` has offered."""
        return Msat(sum(htlc.amount_msat for htlc in self.htlcs if htlc.offerer == name))

    def spendable(self, name: str) -> Msat:
        """What `name` can send now."""
        return Msat(0 if self.closed else max(0, self.to_us[name] - self.offered(name) - self.reserve_msat))

    def take_out(self, name: str, amount_msat: Msat, txid: str) -> None:
        """Take from what `name` can send; the channel's new funding waits for a block, and it goes on meanwhile."""
        assert self.takes_htlcs and self.splice is None and amount_msat <= self.spendable(name)  # noqa: PT018 - the caller asked for it
        self.to_us[name] = Msat(self.to_us[name] - amount_msat)
        self.total_msat, self.splice = Msat(self.total_msat - amount_msat), txid
        self.check()

    def confirm_splice(self, short_channel_id: str) -> None:
        """A block has its new funding, which is the splice's second output."""
        assert self.splice is not None
        self.funding_txid, self.funding_outnum, self.splice = self.splice, 1, None
        self.short_channel_id = short_channel_id

    def offer(
        self,
        offerer: str,
        amount_msat: Msat,
        payment_hash: Digest,
        cltv_expiry: BlockHeight,
        settled: Callable[[str], None],
        failed: Callable[[HtlcRefused], None],
    ) -> Htlc:
        """Add an HTLC. Raises HtlcRefused, and then nothing changed."""
        if not self.takes_htlcs:
            raise HtlcRefused(Onion.PERMANENT_CHANNEL_FAILURE, "Channel closed")
        if sum(htlc.offerer == offerer for htlc in self.htlcs) >= self.slots:
            raise HtlcRefused(Onion.TEMPORARY_CHANNEL_FAILURE, "Too many HTLCs")
        if amount_msat > self.spendable(offerer):
            raise HtlcRefused(Onion.TEMPORARY_CHANNEL_FAILURE, "Capacity exceeded - HTLC fee: 0sat")
        number = self.offered_count.get(offerer, 0)
        self.offered_count[offerer] = number + 1
        htlc = Htlc(self, offerer, number, amount_msat, payment_hash, cltv_expiry, settled, failed)
        self.htlcs.append(htlc)
        self.check()
        return htlc

    def fulfil(self, htlc: Htlc, preimage: str) -> None:
        """Move the money, then tell whoever offered it."""
        assert htlc in self.htlcs, f"{self.short_channel_id}: HTLC {htlc.id} is gone"
        self.htlcs.remove(htlc)
        self.to_us[htlc.offerer] = Msat(self.to_us[htlc.offerer] - htlc.amount_msat)
        receiver = self.peer(htlc.offerer)
        self.to_us[receiver] = Msat(self.to_us[receiver] + htlc.amount_msat)
        self.check()
        htlc.settled(preimage)

    def fail(self, htlc: Htlc, reason: HtlcRefused) -> None:
        """Give the money back, then tell whoever offered it. A no-op on one that ran out before."""
        if htlc not in self.htlcs:
            return
        self.htlcs.remove(htlc)
        self.check()
        htlc.failed(reason)

    def check(self) -> None:
        """Money is conserved, and nobody promised what it does not have."""
        assert sum(self.to_us.values()) == self.total_msat, f"{self.short_channel_id}: {self.to_us} is not {self.total_msat}"
        for name in self.ends:
            assert 0 <= self.offered(name) <= self.to_us[name], f"{self.short_channel_id}: {name} offered more than it has"
