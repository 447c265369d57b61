"""A coordinator that opens channels by policy, and the workers that it may open them to."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import ChannelOpened
from nostrain.core.inputs import Boot, NodeChanged, Received
from nostrain.core.treasury.capacity import capacity_msat
from nostrain.core.treasury.liquidity_rows import Coin, Peer
from nostrain.core.treasury.policies import ChannelPolicy
from nostrain.protocol.messages import Message, NodeAddress
from nostrain.units import BlockHeight, Digest, Msat
from tests.core.actors import EXAMPLES, HEIGHT, Node, changed, until
from tests.docs.examples import COORDINATOR, WORKERS, Party

MANIFEST = EXAMPLES.manifest
LEVELS = len(MANIFEST.scoring.levels_ppm)
FIRST, LATER = (capacity_msat(MANIFEST.settlement, LEVELS, rounds, 1000) for rounds in (4, 32))
POLICY = ChannelPolicy(
    to="enrolled",
    first_rounds=4,
    rounds=32,
    total_msat=Msat(10 * FIRST),
    day_msat=Msat(4 * FIRST),
    reserve_msat=Msat(100_000_000),
    max_channels=20,
    minconf=3,
    feerate_perkb=2000,
    commitment_feerate_perkb=1000,
    announce=False,
    private=False,
)
OTHER = Coin("bb" * 32 + ":1", Msat(500_000_000), BlockHeight(HEIGHT - 9))
RICH = Coin("aa" * 32 + ":0", Msat(500_000_000), BlockHeight(HEIGHT - 2))
TXID = Digest("77" * 32)
OPENED = ChannelOpened(TXID, "66" * 32)


def node_id(party: Party) -> str:
    """A key of its own; the machines only compare it."""
    return "02" + party.pubkey


def leader(*coins: Coin, peers: tuple[Peer, ...] = (), policy: ChannelPolicy = POLICY, workers: int = 1) -> Node:
    """A coordinator whose first workers take a channel, before the first round is announced."""
    there = Node(COORDINATOR, "coordinator")
    there.identity = msgspec.structs.replace(there.identity, channels=policy)
    there.take(Boot(there.identity))
    there.block().hear(until("manifest"))
    funds(there, *(coins or (RICH,)), peers=peers)
    for n, party in enumerate(WORKERS[:workers]):
        there.take(Received(enrols(n, party)))
    return there


def enrols(n: int, party: Party, address: str = "93.184.216.34:9735", id_: str | None = None, after: int = 3) -> Message:
    return changed(f"enrolment worker {n}", party, after, node=NodeAddress(id_ or node_id(party), address))


def funds(there: Node, *coins: Coin, peers: tuple[Peer, ...] = ()) -> None:
    there.take(NodeChanged("ready", None, peers, "03" * 33, coins))


def peer(party: Party, spendable: int) -> Peer:
    return Peer(node_id(party), True, Msat(spendable), Msat(0), 30, 30)
