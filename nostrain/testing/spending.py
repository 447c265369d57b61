"""What the fake Lightning node does with channels and coins: the part of `ports.lightning.Lightning` that touches the chain."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from nostrain.errors import OutcomeUnknown
from nostrain.ports.lightning import ChannelOrder, OpenResult, Prepared, SentResult, SpliceOrder, WithdrawalOrder
from nostrain.units import BlockHeight, Digest

if TYPE_CHECKING:
    from nostrain.testing.lightning import FakeLedger


class FakeSpending(ABC):
    """Of one node; `_reach` raises Unavailable while it is down."""

    _ledger: FakeLedger
    _name: str

    @abstractmethod
    async def _reach(self) -> None: ...

    async def open_channel(self, order: ChannelOrder) -> OpenResult:
        """As the port: the peer is whoever is not down."""
        await self._reach()
        ledger = self._ledger
        if order.node_id in ledger.down and not order.ask:
            return OpenResult(None, reason="the peer cannot be reached")
        result = ledger.wallet.open(self._name, order, BlockHeight(ledger.height()))
        self._lose()
        return result

    def _lose(self) -> None:
        """Raises OutcomeUnknown if this reply is to be lost."""
        if self._ledger.lost_replies > 0:
            self._ledger.lost_replies -= 1
            raise OutcomeUnknown("the reply was lost")

    async def splice_out(self, order: SpliceOrder) -> SentResult:
        """As the port."""
        await self._reach()
        result = self._ledger.wallet.splice(self._name, order, BlockHeight(self._ledger.height()))
        self._lose()
        return result

    async def prepare_withdrawal(self, order: WithdrawalOrder) -> Prepared:
        """As the port."""
        await self._reach()
        made = self._ledger.wallet.prepare(self._name, order, BlockHeight(self._ledger.height()))
        self._lose()
        return made

    async def send_withdrawal(self, txid: Digest, psbt: str, coins: tuple[str, ...]) -> SentResult:
        """As the port."""
        await self._reach()
        result = self._ledger.wallet.send(self._name, txid, psbt, coins)
        self._lose()
        return result
