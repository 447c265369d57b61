"""Core Lightning's methods about the node, its channels and the chain, with the names and fields of its release 26.06."""

from __future__ import annotations

import hashlib
from typing import Final

import trio

from nostrain.devnet.simnet.chain import Coin
from nostrain.devnet.simnet.channels import Channel
from nostrain.devnet.simnet.methods import NodeMethods
from nostrain.devnet.simnet.params import GetLog, ListFunds, ListPeerChannels, Nothing, WaitBlockHeight
from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, Method, RpcFailure

NETWORK: Final = "regtest"
VERSION: Final = "v26.06-simnet"
WAIT_TIMEOUT: Final = 2000
LEVELS: Final = frozenset({"broken", "unusual", "info", "debug", "trace", "io"})


class InfoMethods(NodeMethods):
    """On one node."""

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "getinfo": Method(Nothing, self.getinfo),
            "listpeerchannels": Method(ListPeerChannels, self.listpeerchannels),
            "listfunds": Method(ListFunds, self.listfunds),
            "getlog": Method(GetLog, self.getlog),
            "waitblockheight": Method(WaitBlockHeight, self.waitblockheight),
        }

    def getinfo(self, _: Nothing) -> Json:
        """The node; its alias and version say what it is."""
        channels = self.network.channels_of(self.node.name)
        return {
            "id": self.node.id,
            "alias": f"simnet-{self.node.name}",
            "color": self.node.id[2:8],
            "num_peers": len(channels),
            "num_pending_channels": sum(channel.pending for channel in channels),
            "num_active_channels": sum(channel.takes_htlcs for channel in channels),
            "num_inactive_channels": sum(channel.closed for channel in channels),
            "address": [],
            "binding": [],
            "version": VERSION,
            "blockheight": self.network.height,
            "network": NETWORK,
            "fees_collected_msat": 0,
            "lightning-dir": self.node.name,
            "our_features": {"init": "", "node": "", "channel": "", "invoice": "4100"},
        }

    def getlog(self, asked: GetLog) -> Json:
        """No log; but when it began, which is when the node was started."""
        if asked.level not in LEVELS:
            raise RpcFailure(INVALID_PARAMS, f"level: should be 'io', 'debug', 'info', or 'unusual': invalid token '{asked.level}'")
        return {"created_at": f"{self.node.started_at:.9f}", "bytes_used": 0, "bytes_max": 0, "log": []}

    def listpeerchannels(self, asked: ListPeerChannels) -> Json:
        """Every channel, or those with one peer."""
        channels = [self.channel(channel) for channel in self.network.channels_of(self.node.name)]
        wanted = [
            channel
            for channel in channels
            if asked.id in (None, channel["peer_id"]) and asked.short_channel_id in (None, channel.get("short_channel_id"))
        ]
        return {"channels": wanted}

    def channel(self, channel: Channel) -> Json:
        """One channel as lightningd lists it."""
        name, peer = self.node.name, self.network.nodes[channel.peer(self.node.name)]
        to_us = channel.to_us[name]
        return {
            "peer_id": peer.id,
            "peer_connected": peer.up,
            **({"reestablished": True} if peer.up else {}),
            "state": channel.state,
            **scid_of(channel),
            "direction": 0 if self.node.id < peer.id else 1,
            "channel_id": channel.channel_id,
            "funding_txid": channel.funding_txid,
            "funding_outnum": channel.funding_outnum,
            **({} if channel.splice is None else {"inflight": [{"funding_txid": channel.splice, "funding_outnum": 1}]}),
            "private": channel.private,
            "opener": "local" if channel.ends[0] == name else "remote",
            "features": ["option_static_remotekey", "option_anchors"],
            "to_us_msat": to_us,
            "min_to_us_msat": to_us,
            "max_to_us_msat": to_us,
            "total_msat": channel.total_msat,
            "fee_base_msat": 0,
            "fee_proportional_millionths": 0,
            "their_reserve_msat": channel.reserve_msat,
            "our_reserve_msat": channel.reserve_msat,
            "spendable_msat": channel.spendable(name),
            "receivable_msat": channel.spendable(peer.name),
            "minimum_htlc_in_msat": 0,
            "minimum_htlc_out_msat": 0,
            "maximum_htlc_out_msat": channel.total_msat,
            "max_accepted_htlcs": channel.slots,
            "htlcs": [
                {
                    "direction": "out" if htlc.offerer == name else "in",
                    "id": htlc.id,
                    "amount_msat": htlc.amount_msat,
                    "expiry": htlc.cltv_expiry,
                    "payment_hash": htlc.payment_hash,
                    "state": "SENT_ADD_ACK_REVOCATION" if htlc.offerer == name else "RCVD_ADD_ACK_REVOCATION",
                }
                for htlc in channel.htlcs
            ],
        }

    def listfunds(self, asked: ListFunds) -> Json:
        """The wallet's coins, and the channels."""
        channels = [self.channel(channel) for channel in self.network.channels_of(self.node.name)]
        listed = [
            {
                "peer_id": channel["peer_id"],
                "connected": channel["peer_connected"],
                "state": channel["state"],
                "channel_id": channel["channel_id"],
                **{name: channel[name] for name in ("short_channel_id",) if name in channel},
                "our_amount_msat": channel["to_us_msat"],
                "amount_msat": channel["total_msat"],
                "funding_txid": channel["funding_txid"],
                "funding_output": channel["funding_outnum"],
            }
            for channel in channels
        ]
        return {"outputs": [self.coin(coin) for coin in self.network.chain.seen(self.node.name, spent=asked.spent)], "channels": listed}

    def coin(self, coin: Coin) -> Json:
        """A coin as lightningd lists it."""
        reserved = coin.spender is None and coin.reserved_to > self.network.height
        return {
            "txid": coin.txid,
            "output": coin.vout,
            "amount_msat": coin.amount_msat,
            "scriptpubkey": "5120" + hashlib.sha256(coin.address.encode()).hexdigest(),
            "address": coin.address,
            "status": "spent" if coin.spender is not None else "unconfirmed" if coin.height is None else "confirmed",
            **({"blockheight": coin.height} if coin.height is not None and coin.spender is None else {}),
            "reserved": reserved,
            **({"reserved_to_block": coin.reserved_to} if reserved else {}),
        }

    async def waitblockheight(self, asked: WaitBlockHeight) -> Json:
        """Return once the chain is that high."""
        with trio.move_on_after(asked.timeout):
            while self.network.height < asked.blockheight:
                await self.network.block.wait()
            return {"blockheight": self.network.height}
        raise RpcFailure(WAIT_TIMEOUT, "Timed out.")


def scid_of(channel: Channel) -> Json:
    """The short channel id of a channel that has one."""
    return {} if channel.pending else {"short_channel_id": channel.short_channel_id}
