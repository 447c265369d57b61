"""Core Lightning's methods that reach for peers and coins, with the names, fields and error codes of its release 26.06.

Less than lightningd can, and nothing that it cannot: channels take one funder, and every transaction costs the same.
"""

from __future__ import annotations

from typing import Final

from nostrain.devnet.simnet.chain import DUST_SAT, Coin, Output, Refused
from nostrain.devnet.simnet.channels import Channel
from nostrain.devnet.simnet.methods import NodeMethods
from nostrain.devnet.simnet.params import Connect, FundChannel, ListTransactions, NewAddr, PeerId
from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, Method, RpcFailure
from nostrain.units import Msat

NO_ADDRESS: Final = 400
ALL_ADDRESSES_FAILED: Final = 401
NOT_CANCELLABLE: Final = 308
UNKNOWN_PEER: Final = 306
MIN_CHANNEL_SAT: Final = 10_000
"""lightningd's `min-capacity-sat`, of the peer."""


def sats(text: str | int, name: str) -> int:
    """An amount as lightningd takes it: a number, or one with `sat` behind it. Raises RpcFailure."""
    digits = str(text).removesuffix("sat")
    if not digits.isdecimal():
        raise RpcFailure(INVALID_PARAMS, f"{name}: should be a satoshi amount: invalid token '{text}'")
    return int(digits)


class OnchainMethods(NodeMethods):
    """On one node."""

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "connect": Method(Connect, self.connect),
            "fundchannel": Method(FundChannel, self.fundchannel),
            "fundchannel_cancel": Method(PeerId, self.fundchannel_cancel),
            "listtransactions": Method(ListTransactions, self.listtransactions),
            "newaddr": Method(NewAddr, self.newaddr),
        }

    def connect(self, asked: Connect) -> Json:
        """A node of this network that is up can be reached, however it is called."""
        peer = self.network.by_id.get(asked.id.partition("@")[0])
        if peer is None and asked.host is None and "@" not in asked.id:
            raise RpcFailure(NO_ADDRESS, "Unable to connect, no address known for peer")
        if peer is None or not peer.up:
            raise RpcFailure(ALL_ADDRESSES_FAILED, f"All addresses failed: {asked.host}:{asked.port}: Connection refused. ")
        return {
            "id": peer.id,
            "features": "",
            "direction": "out",
            "address": {"type": "ipv4", "address": asked.host or "127.0.0.1", "port": asked.port or 19846},
        }

    def fundchannel(self, asked: FundChannel) -> Json:
        """Open a channel; it waits for a block. Nothing is done half: either there is a transaction or there is nothing."""
        capacity = sats(asked.amount, "amount")
        if capacity < DUST_SAT:
            raise RpcFailure(INVALID_PARAMS, "destinations: output would be dust")
        peer = self.network.by_id.get(asked.id)
        if peer is None:
            raise RpcFailure(NO_ADDRESS, "Unable to connect, no address known for peer")
        if not peer.up:
            raise RpcFailure(ALL_ADDRESSES_FAILED, "All addresses failed: Connection refused. ")
        try:
            coins = self.coins(asked.utxos, capacity, 1 if asked.minconf is None else asked.minconf)
            output = Output(f"channel/{self.node.name}/{peer.name}", Msat(capacity * 1000), channel=True)
            transaction = self.chain.build(self.node.name, coins, (output,), keeps_emergency=True)
            if capacity < MIN_CHANNEL_SAT:
                raise Refused(-1, f"They sent ERROR channel: channel capacity with funding {capacity}sat is below {MIN_CHANNEL_SAT}sat")
            self.chain.send(transaction, self.network.height)
        except Refused as refused:
            raise RpcFailure(refused.code, str(refused)) from None
        ends = (self.node.name, peer.name)
        channel = Channel(
            ends,
            "",
            {self.node.name: Msat(capacity * 1000), peer.name: Msat(0)},
            self.network.slots,
            pending=True,
            private=not asked.announce,
            funding_txid=transaction.txid,
        )
        self.network.channels.append(channel)
        self.network.check()
        return {"tx": "", "txid": transaction.txid, "channel_id": channel.channel_id, "outnum": 0}

    def coins(self, outpoints: list[str] | None, capacity: int, minconf: int) -> list[Coin]:
        """Those that are named, or as many as it takes. Raises Refused."""
        if outpoints is not None:
            return self.chain.named(self.node.name, outpoints, self.network.height)
        chosen: list[Coin] = []
        for coin in self.chain.free(self.node.name, self.network.height, minconf):
            if sum(coin.amount_msat for coin in chosen) < 2 * capacity * 1000:
                chosen.append(coin)
        return chosen

    def fundchannel_cancel(self, asked: PeerId) -> Json:
        """There is never anything to cancel: an opening is over when `fundchannel` returns."""
        peer = self.network.by_id.get(asked.id)
        if peer is None or not any(peer.name in channel.ends for channel in self.network.channels_of(self.node.name)):
            raise RpcFailure(UNKNOWN_PEER, "Unknown peer")
        raise RpcFailure(NOT_CANCELLABLE, "Has the funding transaction been broadcast? Please use `close` or `dev-fail` instead.")

    def listtransactions(self, _: ListTransactions) -> Json:
        """What spends or makes a coin of the wallet."""
        own = {coin.outpoint for coin in self.chain.seen(self.node.name, spent=True)}
        made = {outpoint.partition(":")[0] for outpoint in own}
        mine = [transaction for transaction in self.chain.sent.values() if transaction.txid in made or own & set(transaction.inputs)]
        return {
            "transactions": [
                {
                    "hash": transaction.txid,
                    "rawtx": "",
                    "blockheight": transaction.height or 0,
                    "txindex": 0,
                    "locktime": 0,
                    "version": 2,
                    "inputs": [
                        {"txid": outpoint.partition(":")[0], "index": int(outpoint.partition(":")[2]), "sequence": 0xFFFFFFFD}
                        for outpoint in transaction.inputs
                    ],
                    "outputs": [
                        {"index": index, "amount_msat": output.amount_msat, "scriptPubKey": ""}
                        for index, output in enumerate(transaction.outputs)
                    ],
                }
                for transaction in mine
            ]
        }

    def newaddr(self, _: NewAddr) -> Json:
        """An address of the wallet."""
        return {"p2tr": self.chain.address(self.node.name)}
