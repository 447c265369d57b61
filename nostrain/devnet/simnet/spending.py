"""Core Lightning's methods that take money out: of a channel, and of the wallet; names, fields and error codes of its release 26.06."""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from nostrain.devnet.simnet.chain import FEE_SAT, RESERVED_BLOCKS, Output, Refused, Transaction
from nostrain.devnet.simnet.methods import NodeMethods
from nostrain.devnet.simnet.onchain import sats
from nostrain.devnet.simnet.params import ReserveInputs, SendPsbt, SignPsbt, SpliceOut, TxId, TxPrepare
from nostrain.devnet.simnet.rpc import INVALID_PARAMS, Json, Method, RpcFailure
from nostrain.units import Msat

SPLICE_INVALID_AMOUNT: Final = 362
FAILED: Final = -1


class SpendingMethods(NodeMethods):
    """On one node."""

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "spliceout": Method(SpliceOut, self.spliceout),
            "txprepare": Method(TxPrepare, self.txprepare),
            "txdiscard": Method(TxId, self.txdiscard),
            "signpsbt": Method(SignPsbt, self.signpsbt),
            "sendpsbt": Method(SendPsbt, self.sendpsbt),
            "reserveinputs": Method(ReserveInputs, self.reserveinputs),
        }

    def spliceout(self, asked: SpliceOut) -> Json:
        """From our side of a channel into our wallet, the fee from the channel too; one splice at a time."""
        if asked.destination != "wallet":
            raise RpcFailure(INVALID_PARAMS, "Dynamic bitcoin address amounts not supported for now")
        amount = sats(asked.amount, "amount") * 1000
        name = self.node.name
        channel = next((one for one in self.network.channels_of(name) if one.channel_id == asked.channel), None)
        if channel is None or not channel.takes_htlcs or not self.network.nodes[channel.peer(name)].up:
            raise RpcFailure(INVALID_PARAMS, f"no usable channel {asked.channel}")
        if channel.splice is not None:
            raise RpcFailure(INVALID_PARAMS, "a splice waits to be confirmed")
        taken = Msat(amount + FEE_SAT * 1000)
        if taken > channel.spendable(name):
            said = f"Intiator is attempting to splice out -{amount // 1000}sat funds out of channel while only having less"
            raise RpcFailure(INVALID_PARAMS, f'splice_update: {{"code":{SPLICE_INVALID_AMOUNT},"message":"{said}"}}')
        outputs = (Output(self.chain.address(name), Msat(amount)),)
        transaction = Transaction(name, (f"{channel.funding_txid}:{channel.funding_outnum}",), outputs, taken, len(self.chain.addresses))
        channel.take_out(name, taken, transaction.txid)
        self.chain.send(transaction, self.network.height)
        self.network.check()
        return {"psbt": "", "txid": transaction.txid}

    def txprepare(self, asked: TxPrepare) -> Json:
        """A transaction that is not sent; its coins are reserved."""
        outputs = [Output(address, Msat(sats(amount, "amount") * 1000)) for output in asked.outputs for address, amount in output.items()]
        if any(not output.address.startswith("bcrt1") and output.address not in self.chain.addresses for output in outputs):
            raise RpcFailure(INVALID_PARAMS, "Could not parse destination address")
        name, height = self.node.name, self.network.height
        try:
            free = self.chain.free(name, height, 1 if asked.minconf is None else asked.minconf)
            coins = free if asked.utxos is None else self.chain.named(name, asked.utxos, height)
            transaction = self.chain.build(name, coins, outputs, keeps_emergency=bool(self.network.channels_of(name)))
        except Refused as refused:
            raise RpcFailure(refused.code, str(refused)) from None
        self.chain.reserve(transaction, height + RESERVED_BLOCKS)
        psbt = base64.b64encode(hashlib.sha256(transaction.txid.encode()).digest()).decode()
        self.chain.psbts[psbt] = (name, transaction)
        return {"psbt": psbt, "unsigned_tx": "", "txid": transaction.txid}

    def txdiscard(self, asked: TxId) -> Json:
        """Free the coins of a transaction that was not sent."""
        for name, transaction in self.chain.psbts.values():
            if (name, transaction.txid) == (self.node.name, asked.txid):
                for outpoint in transaction.inputs:
                    self.chain.coins[outpoint].reserved_to = 0
                return {"unsigned_tx": "", "txid": asked.txid}
        raise RpcFailure(INVALID_PARAMS, f"not an unreleased txid '{asked.txid}'")

    def prepared(self, psbt: str) -> Transaction:
        """A transaction of this node's, whose coins are still reserved. Raises RpcFailure."""
        name, transaction = self.chain.psbts.get(psbt, ("", None))
        if transaction is None or name != self.node.name:
            raise RpcFailure(INVALID_PARAMS, f"psbt: Expected a PSBT: invalid token '{psbt}'")
        for outpoint in transaction.inputs:
            coin = self.chain.coins[outpoint]
            if coin.spender is not None or coin.reserved_to <= self.network.height:
                raise RpcFailure(FAILED, f"Aborting PSBT signing. UTXO {outpoint} is not reserved")
        return transaction

    def reserveinputs(self, asked: ReserveInputs) -> Json:
        """Keep the coins of a transaction for it, if nothing else has them."""
        name, transaction = self.chain.psbts.get(asked.psbt, ("", None))
        if transaction is None or name != self.node.name:
            raise RpcFailure(INVALID_PARAMS, f"psbt: Expected a PSBT: invalid token '{asked.psbt}'")
        height = self.network.height
        for coin in (self.chain.coins[outpoint] for outpoint in transaction.inputs):
            if coin.spender is not None or (asked.exclusive and coin.reserved_to > height):
                raise RpcFailure(INVALID_PARAMS, f"{coin.outpoint} already {'spent' if coin.spender else 'reserved'}")
        self.chain.reserve(transaction, height + asked.reserve)
        return {"reservations": []}

    def signpsbt(self, asked: SignPsbt) -> Json:
        """The same PSBT: there are no signatures here."""
        self.prepared(asked.psbt)
        return {"signed_psbt": asked.psbt}

    def sendpsbt(self, asked: SendPsbt) -> Json:
        """Send it, now or again."""
        transaction = self.prepared(asked.psbt)
        try:
            self.chain.send(transaction, self.network.height)
        except Refused as refused:
            raise RpcFailure(refused.code, str(refused)) from None
        self.network.check()
        return {"tx": "", "txid": transaction.txid}
