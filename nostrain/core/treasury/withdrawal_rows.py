"""The row of the withdrawals to the operator's own address."""

from __future__ import annotations

import msgspec

from nostrain.core.tables import WithdrawalState
from nostrain.units import Digest, Msat, UnixTime


class Withdrawal(msgspec.Struct, frozen=True, tag="withdrawal"):
    """Row `withdrawal`: the last one, `number` of them all. One that begins in a channel takes `spliced_msat` out of it first.

    `psbt` is the whole transaction, signed: secret enough, as whoever has it can send it. `coins` are what it spends.
    """

    number: int
    address: str
    state: WithdrawalState
    at: UnixTime
    channel_id: str = ""
    funding_txid: str = ""
    spliced_msat: Msat = Msat(0)
    splice_txid: Digest | None = None
    amount_msat: Msat = Msat(0)
    coins: tuple[str, ...] = ()
    txid: Digest | None = None
    psbt: str = ""
    failures: int = 0
    retry_at: UnixTime = UnixTime(0)
