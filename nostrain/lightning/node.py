"""Reads and idempotent calls of one lightningd: everything that may simply be asked again when a reply is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from nostrain.errors import ConfigError, OutcomeUnknown, Unavailable
from nostrain.lightning.replies import BlockHeightReply, GetInfo, ListPeerChannels, PeerChannel
from nostrain.lightning.rpc import ClnError, ClnRpc, Rpc
from nostrain.ports.lightning import ChannelFunds, PeerFunds
from nostrain.units import BlockHeight, Msat

METHOD_NOT_FOUND: Final = -32601
NORMAL: Final = "CHANNELD_NORMAL"
OPEN: Final = frozenset({NORMAL, "CHANNELD_AWAITING_SPLICE"})
"""States in which a channel takes HTLCs: also while a splice of it waits to be confirmed."""
MAX_CHANNELS: Final = 32
CURRENCIES: Final = {"bitcoin": "bc", "testnet": "tb", "testnet4": "tb", "signet": "tbs", "regtest": "bcrt"}
"""The currency in an invoice's prefix, by lightningd's name of the network."""

T = TypeVar("T")


class ChannelBalance(msgspec.Struct, frozen=True):
    """One channel: what can be sent and received now, what is held in HTLCs offered by us and to us, and the slots in use and allowed."""

    peer_id: str
    connected: bool
    state: str
    spendable_msat: Msat
    receivable_msat: Msat
    held_msat: Msat
    incoming_msat: Msat
    htlcs_out: int
    htlcs_in: int
    max_accepted_htlcs: int


class Balances(msgspec.Struct, frozen=True):
    """All channels of a node, and their sums; a channel that is not open adds nothing that can be spent or received."""

    channels: tuple[ChannelBalance, ...]

    @property
    def spendable_msat(self) -> Msat:
        """What can be sent now."""
        return Msat(sum(channel.spendable_msat for channel in self.channels if channel.state in OPEN))

    @property
    def receivable_msat(self) -> Msat:
        """What can be received now."""
        return Msat(sum(channel.receivable_msat for channel in self.channels if channel.state in OPEN))

    @property
    def held_msat(self) -> Msat:
        """What we have offered and may lose."""
        return Msat(sum(channel.held_msat for channel in self.channels))

    @property
    def incoming_msat(self) -> Msat:
        """What was offered to us and we may gain."""
        return Msat(sum(channel.incoming_msat for channel in self.channels))


class ClnNode:
    """A lightningd. Its id and network are asked for once: they do not change. `network`: the one that it must be on, as lightningd names it.

    `rpc` is its methods, or the path of the Unix socket on which they are.
    """

    def __init__(self, rpc: Path | Rpc, timeout_s: float, network: str | None = None) -> None:
        self.rpc: Rpc = ClnRpc(rpc) if isinstance(rpc, Path) else rpc
        self.timeout_s = timeout_s
        self._network = network
        self._info: GetInfo | None = None

    async def ask(self, method: str, params: Mapping[str, object], reply: type[T]) -> T:
        """A call that may be repeated. Raises Unavailable, ClnError."""
        try:
            return await self.rpc.call(method, params, reply, timeout_s=self.timeout_s)
        except OutcomeUnknown as error:
            raise Unavailable(str(error)) from error
        except ClnError as error:
            if error.code == METHOD_NOT_FOUND:
                raise Unavailable(f"{error}: is the plugin that has it running?") from error
            raise

    async def read(self, method: str, params: Mapping[str, object], reply: type[T]) -> T:
        """A call that changes nothing and whose errors all mean: not now. Raises Unavailable."""
        try:
            return await self.ask(method, params, reply)
        except ClnError as error:
            raise Unavailable(str(error)) from error

    async def info(self) -> GetInfo:
        """Raises Unavailable; ConfigError when the node is on another network than it must be."""
        info = await self.read("getinfo", {}, GetInfo)
        if self._network not in (None, info.network):
            reason = f"the lightningd at {self.rpc} is on {info.network!r:.32}"
            raise ConfigError("lightning.network", self._network, reason, "Set it to that node's network, or name another node")
        self._info = info
        return info

    async def height(self) -> BlockHeight:
        """The newest block that lightningd acts on: getinfo tells the one that its gossip daemon has seen, which comes later. Raises Unavailable."""
        return (await self.read("waitblockheight", {"blockheight": 0}, BlockHeightReply)).blockheight

    async def identity(self) -> tuple[str, str]:
        """The node id, and the currency of the invoices that it can pay. Raises Unavailable, ConfigError."""
        known = self._info or await self.info()
        if known.network not in CURRENCIES:
            raise Unavailable(f"lightningd is on {known.network!r:.32}, which has no invoices that we know")
        return known.id, CURRENCIES[known.network]

    async def channels(self, peer_id: str | None = None) -> tuple[PeerChannel, ...]:
        """Our channels, or those with one peer. Raises Unavailable."""
        params = {} if peer_id is None else {"id": peer_id}
        return (await self.read("listpeerchannels", params, ListPeerChannels)).channels

    async def balances(self) -> Balances:
        """What the channels hold. Raises Unavailable."""
        return Balances(tuple(_balance(channel) for channel in await self.channels()))


def peer_funds(channels: Sequence[PeerChannel]) -> tuple[PeerFunds, ...]:
    """The open channels by peer, in the order of node ids. lightningd tells our limit of HTLCs only; the other side's is taken to be the same."""
    found: dict[str, list[PeerChannel]] = {}
    for channel in channels:
        if channel.state in OPEN:
            found.setdefault(channel.peer_id, []).append(channel)
    return tuple(
        PeerFunds(
            node_id=peer_id,
            connected=any(channel.peer_connected for channel in theirs),
            spendable_msat=Msat(sum(channel.spendable_msat for channel in theirs)),
            receivable_msat=Msat(sum(channel.receivable_msat for channel in theirs)),
            slots_out=sum(slots_left(channel, "out") for channel in theirs),
            slots_in=sum(slots_left(channel, "in") for channel in theirs),
        )
        for peer_id, theirs in sorted(found.items())
    )


def channel_funds(channels: Sequence[PeerChannel]) -> tuple[ChannelFunds, ...]:
    """The largest channels that are open, connected and not being spliced, in the order of their ids."""
    found = (
        ChannelFunds(channel.channel_id, channel.funding_txid, channel.spendable_msat)
        for channel in channels
        if channel.state == NORMAL and channel.peer_connected
    )
    largest = sorted(found, key=lambda one: (-one.spendable_msat, one.channel_id))[:MAX_CHANNELS]
    return tuple(sorted(largest, key=lambda one: one.channel_id))


def slots_left(channel: PeerChannel, direction: str) -> int:
    """HTLCs that the channel can still take in one direction."""
    return max(0, channel.max_accepted_htlcs - sum(htlc.direction == direction for htlc in channel.htlcs))


def _balance(channel: PeerChannel) -> ChannelBalance:
    offered = [htlc.amount_msat for htlc in channel.htlcs if htlc.direction == "out"]
    incoming = [htlc.amount_msat for htlc in channel.htlcs if htlc.direction == "in"]
    return ChannelBalance(
        peer_id=channel.peer_id,
        connected=channel.peer_connected,
        state=channel.state,
        spendable_msat=channel.spendable_msat,
        receivable_msat=channel.receivable_msat,
        held_msat=Msat(sum(offered)),
        incoming_msat=Msat(sum(incoming)),
        htlcs_out=len(offered),
        htlcs_in=len(incoming),
        max_accepted_htlcs=channel.max_accepted_htlcs,
    )
