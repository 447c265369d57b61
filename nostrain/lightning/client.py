"""`ports.lightning.Lightning` on Core Lightning's methods, and what else of a node the daemon needs."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Final

import msgspec
import trio

from nostrain.errors import LocalProtocolError, Unavailable
from nostrain.lightning import channels, holds, income, offers, payments, wallet, withdrawals
from nostrain.lightning.node import Balances, ClnNode, channel_funds, peer_funds
from nostrain.lightning.replies import GetInfo, InvoiceReply, ListInvoices
from nostrain.lightning.rpc import ClnError, Rpc
from nostrain.ports.lightning import (
    ChannelOrder,
    FetchedInvoice,
    HoldUpdate,
    Income,
    NodeFunds,
    OpenResult,
    PayResult,
    Prepared,
    SentResult,
    SpliceOrder,
    WithdrawalOrder,
)
from nostrain.units import BlockHeight, Digest, Msat

TIMEOUT_S: Final = 30.0
"""For calls that lightningd answers at once; payments have none."""
HOLD_POLL_S: Final = 1.0
MAX_FINAL_CLTV: Final = 2_000
"""Blocks. xpay and forwarding nodes stop at 2016; over a channel of its own lightningd would lock money for as long as it is told."""
INVOICE_LABEL_ALREADY_EXISTS: Final = 900


class Issued(msgspec.Struct, frozen=True):
    """An ordinary invoice of ours, and whether it is paid."""

    bolt11: str
    payment_hash: Digest
    paid: bool


class ClnLightning:
    """One lightningd with a hold plugin. `rpc` is its methods, or the path of the Unix socket on which they are. Calls run at the same time; any of them may be cancelled.

    `coins`: whether `funds` looks into the wallet, and at single channels. With `network`, a node that is on another one is refused: whatever first asks for its id or height raises ConfigError, and nothing is paid.
    """

    def __init__(
        self,
        rpc: Path | Rpc,
        *,
        network: str | None = None,
        hold_poll_s: float = HOLD_POLL_S,
        coins: bool = False,
        timeout_s: float = TIMEOUT_S,
        max_final_cltv: int = MAX_FINAL_CLTV,
    ) -> None:
        self._node = ClnNode(rpc, timeout_s, network)
        self._hold_poll_s, self._coins = hold_poll_s, coins
        self._max_final_cltv = max_final_cltv

    async def info(self) -> GetInfo:
        """Id, network, version and height, with warnings while the node catches up. Raises Unavailable, ConfigError."""
        return await self._node.info()

    async def block_height(self) -> BlockHeight:
        """As the port. A node that is catching up with the chain is Unavailable: its height is old."""
        info = await self._node.info()
        warning = info.warning_bitcoind_sync or info.warning_lightningd_sync
        if warning is not None:
            raise Unavailable(f"lightningd is catching up: {warning}")
        return await self._node.height()

    async def funds(self) -> NodeFunds:
        """As the port."""
        info = await self._node.info()
        syncing = info.warning_bitcoind_sync or info.warning_lightningd_sync
        coins = await wallet.coins(self._node) if self._coins else ()
        height, there = await self._node.height(), await self._node.channels()
        return NodeFunds(height, syncing, peer_funds(there), info.id, coins, channel_funds(there) if self._coins else ())

    async def balances(self) -> Balances:
        """What the channels hold now. Raises Unavailable."""
        return await self._node.balances()

    async def invoice(self, label: str, amount_msat: Msat, description: str, expiry_s: int, preimage: bytes | None = None) -> Issued:
        """An ordinary invoice, on `preimage` if it is given (32 secret bytes, used once); idempotent per label. Raises Unavailable, LocalProtocolError if the label is in use for another amount."""
        params = {"label": label, "amount_msat": amount_msat, "description": description, "expiry": expiry_s}
        if preimage is not None:
            params["preimage"] = preimage.hex()
        try:
            made = await self._node.ask("invoice", params, InvoiceReply)
        except ClnError as error:
            if error.code != INVOICE_LABEL_ALREADY_EXISTS:
                raise Unavailable(str(error)) from error
            listed = (await self._node.read("listinvoices", {"label": label}, ListInvoices)).invoices
            if not listed:
                raise Unavailable(str(error)) from error
            made = listed[0]
            if made.amount_msat != amount_msat:
                raise LocalProtocolError(f"the label {label!r} is in use for another amount") from error
        if made.bolt11 is None:
            raise Unavailable("invoice: the reply has no invoice")
        return Issued(made.bolt11, made.payment_hash, made.status == "paid")

    async def hold_invoice(self, payment_hash: Digest, amount_msat: Msat, min_final_cltv: int, expiry_s: int) -> str:
        """As the port."""
        return await holds.make(self._node, payment_hash, amount_msat, min_final_cltv, expiry_s)

    async def pay(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """As the port."""
        return await payments.pay(self._node, bolt11, payment_hash, amount_msat, self._max_final_cltv)

    async def settle(self, preimage: str) -> None:
        """As the port."""
        await holds.settle(self._node, preimage)

    async def cancel(self, payment_hash: Digest) -> None:
        """As the port."""
        await holds.cancel(self._node, payment_hash)

    def holds(self) -> AbstractAsyncContextManager[trio.MemoryReceiveChannel[HoldUpdate]]:
        """As the port. When the node is lost the channel ends, and leaving the context raises Unavailable."""
        return holds.watch(self._node, self._hold_poll_s)

    async def offer(self, description: str) -> str:
        """As the port."""
        return await offers.make(self._node, description)

    async def fetch_invoice(self, offer: str, amount_msat: Msat) -> FetchedInvoice:
        """As the port."""
        return await offers.fetch(self._node, offer, amount_msat)

    async def pay_fetched(self, bolt12: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """As the port."""
        return await offers.pay(self._node, bolt12, payment_hash, amount_msat)

    async def ended(self, bolt11: str, payment_hash: Digest, amount_msat: Msat) -> PayResult:
        """As `ports.tickets.PurchasePayer`."""
        return await payments.ended(self._node, bolt11, payment_hash, amount_msat, self._max_final_cltv)

    async def income(self, after: int) -> Income | None:
        """As the port."""
        return await income.first_after(self._node, after)

    async def splice_out(self, order: SpliceOrder) -> SentResult:
        """As the port."""
        return await withdrawals.splice_out(self._node, order)

    async def prepare_withdrawal(self, order: WithdrawalOrder) -> Prepared:
        """As the port."""
        return await withdrawals.prepare(self._node, order)

    async def send_withdrawal(self, txid: Digest, psbt: str, coins: tuple[str, ...]) -> SentResult:
        """As the port."""
        return await withdrawals.send(self._node, txid, psbt, coins)

    async def open_channel(self, order: ChannelOrder) -> OpenResult:
        """As the port."""
        return await channels.open_channel(self._node, order)
