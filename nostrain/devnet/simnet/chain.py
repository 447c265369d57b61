"""The chain under a simnet: coins of the nodes' wallets, transactions that wait for a block, reservations. No scripts: who may spend is noted.

As in lightningd, a coin that is reserved is not spent by anything else, and one that an unconfirmed transaction spends stays listed, reserved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nostrain.units import BlockHeight, Msat

SPARE_SAT: Final = 1_000_000
"""What the first node has beside its channels, as in a network of real nodes."""
FEE_SAT: Final = 250
"""Of every transaction."""
DUST_SAT: Final = 330
EMERGENCY_SAT: Final = 25_000
"""lightningd's `min-emergency-msat`: kept for anchors by a node that has channels."""
RESERVED_BLOCKS: Final = 72
SENT_BLOCKS: Final = 2_016


class Refused(Exception):
    """A transaction that cannot be made: `code` is lightningd's."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(eq=False)
class Coin:
    """An output of a wallet; `height` is None while it is not confirmed, `spender` the confirmed transaction that spent it."""

    owner: str
    txid: str
    vout: int
    amount_msat: Msat
    address: str
    height: BlockHeight | None
    reserved_to: int = 0
    spender: str | None = None

    @property
    def outpoint(self) -> str:
        """`txid:vout`."""
        return f"{self.txid}:{self.vout}"


@dataclass(frozen=True)
class Output:
    """Of a transaction: to the address, which may be a wallet's here, or into a channel."""

    address: str
    amount_msat: Msat
    channel: bool = False


@dataclass(eq=False)
class Transaction:
    """Made by the node `maker`: spends `inputs`, `worth_msat` together; what the outputs do not get is its fee."""

    maker: str
    inputs: tuple[str, ...]
    outputs: tuple[Output, ...]
    worth_msat: int
    nonce: int
    height: BlockHeight | None = None

    @property
    def txid(self) -> str:
        """Follows from everything that is signed."""
        said = f"{self.nonce}/{self.inputs}/{[(output.address, output.amount_msat) for output in self.outputs]}"
        return hashlib.sha256(said.encode()).hexdigest()


@dataclass
class Chain:
    """Coins by outpoint, and transactions by id in the order in which they were sent."""

    coins: dict[str, Coin] = field(default_factory=dict)
    sent: dict[str, Transaction] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    gone_msat: int = 0
    """Fees, and what went to addresses that are nobody's here."""

    psbts: dict[str, tuple[str, Transaction]] = field(default_factory=dict)
    """Transactions that were prepared, by their PSBT, with their maker: lightningd would read them from it."""

    def fund(self, owner: str, amount_msat: Msat, height: BlockHeight) -> None:
        """Give a node a confirmed coin out of nothing, at the beginning."""
        coin = Coin(owner, hashlib.sha256(f"genesis/{owner}".encode()).hexdigest(), 0, amount_msat, self.address(owner), height)
        self.coins[coin.outpoint] = coin

    def address(self, owner: str) -> str:
        """A new address of a node's wallet; nothing that a chain would take."""
        found = f"simnet1{hashlib.sha256(f'{owner}/{len(self.addresses)}'.encode()).hexdigest()[:38]}"
        self.addresses[found] = owner
        return found

    def of(self, owner: str) -> list[Coin]:
        """The coins of a wallet that no confirmed transaction has spent."""
        return [coin for coin in self.coins.values() if coin.owner == owner and coin.spender is None]

    def seen(self, owner: str, *, spent: bool) -> list[Coin]:
        """What the owner's node lists: of others' transactions only those that a block has."""
        return [
            coin
            for coin in self.coins.values()
            if coin.owner == owner and (spent or coin.spender is None)
            if coin.height is not None or self.sent[coin.txid].maker == owner
        ]

    def free(self, owner: str, height: BlockHeight, minconf: int) -> list[Coin]:
        """Those that may be spent: confirmed so often, and not reserved."""
        return [
            coin
            for coin in self.of(owner)
            if coin.reserved_to <= height and (coin.height is not None and height - coin.height + 1 >= minconf)
        ]

    def named(self, owner: str, outpoints: Sequence[str], height: BlockHeight) -> list[Coin]:
        """Coins by name. Raises Refused as `utxopsbt` does."""
        found = []
        for outpoint in outpoints:
            coin = self.coins.get(outpoint)
            if coin is None or coin.owner != owner:
                raise Refused(-32602, f"Unknown UTXO {outpoint}")
            if coin.spender is not None:
                raise Refused(-32602, f"UTXO {outpoint} already spent")
            if coin.reserved_to > height:
                raise Refused(-32602, f"UTXO {outpoint} already reserved")
            found.append(coin)
        return found

    def build(self, owner: str, coins: Sequence[Coin], outputs: Sequence[Output], *, keeps_emergency: bool) -> Transaction:
        """Spend all of `coins`, the rest being change of `owner`. Raises Refused."""
        wanted = sum(output.amount_msat for output in outputs)
        rest = sum(coin.amount_msat for coin in coins) - wanted - FEE_SAT * 1000
        if any(output.amount_msat < DUST_SAT * 1000 for output in outputs):
            raise Refused(302, "output would be dust")
        if rest < 0:
            raise Refused(301, f"Could not afford {wanted // 1000}sat using all {len(coins)} available UTXOs: {-rest // 1000}sat short")
        others = sum(coin.amount_msat for coin in self.of(owner) if coin not in coins and not coin.reserved_to)
        if keeps_emergency and rest + others < EMERGENCY_SAT * 1000:
            raise Refused(313, f"We would not have enough left for min-emergency-msat {EMERGENCY_SAT}sat")
        change = () if rest < DUST_SAT * 1000 else (Output(self.address(owner), Msat(rest)),)
        worth = sum(coin.amount_msat for coin in coins)
        return Transaction(owner, tuple(coin.outpoint for coin in coins), (*outputs, *change), worth, len(self.addresses))

    def reserve(self, transaction: Transaction, until: int) -> None:
        """Keep its inputs from others."""
        for outpoint in transaction.inputs:
            if outpoint in self.coins:
                self.coins[outpoint].reserved_to = max(self.coins[outpoint].reserved_to, until)

    def send(self, transaction: Transaction, height: BlockHeight) -> None:
        """Broadcast; a second time changes nothing. Raises Refused when another one spends its inputs."""
        if transaction.txid in self.sent:
            return
        if any(set(transaction.inputs) & set(other.inputs) for other in self.sent.values()):
            raise Refused(-1, "Error broadcasting transaction: bad-txns-inputs-missingorspent")
        self.sent[transaction.txid] = transaction
        self.reserve(transaction, height + SENT_BLOCKS)
        self.gone_msat += transaction.worth_msat
        for vout, output in enumerate(transaction.outputs):
            owner = self.addresses.get(output.address)
            if owner is not None:
                coin = Coin(owner, transaction.txid, vout, output.amount_msat, output.address, None)
                self.coins[coin.outpoint] = coin
            if owner is not None or output.channel:
                self.gone_msat -= output.amount_msat

    def confirm(self, height: BlockHeight) -> list[Transaction]:
        """A block: it takes whatever waits. What it took."""
        taken = [transaction for transaction in self.sent.values() if transaction.height is None]
        for transaction in taken:
            transaction.height = height
            for outpoint in transaction.inputs:
                if outpoint in self.coins:
                    self.coins[outpoint].spender = transaction.txid
        for coin in self.coins.values():
            if coin.height is None and coin.txid in self.sent:
                coin.height = height
        return taken

    def total(self) -> int:
        """In wallets, what is on its way counted once."""
        spent = {outpoint for transaction in self.sent.values() for outpoint in transaction.inputs}
        return sum(coin.amount_msat for coin in self.coins.values() if coin.outpoint not in spent)
