"""What machines ask the shell to do, and how that can end.

An effect is listed in the state until its outcome is committed, and runs only while listed (design section 9). `id` names it: asking
twice for the same thing is asking once. `RETRY` says what a restart may do with one whose outcome is not known.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from nostrain.core.effects.base import EffectBase, Failed, Ok
from nostrain.core.effects.disputes import CheckDispute, Prove, Proved, Unheard
from nostrain.core.effects.locks import CheckLocks, DrawLocks, LocksDrawn, LocksOpened, LockTerms, OpenLocks, Unlock, Unlocked
from nostrain.core.effects.money import (
    BuyTicket,
    Cancel,
    ChannelOpened,
    FetchInvoice,
    FindTicket,
    HoldInvoice,
    Invoiced,
    InvoiceFetched,
    MakeOffer,
    OfferMade,
    OpenChannel,
    Pay,
    PayEnded,
    PayInvoice,
    PrepareWithdrawal,
    SendWithdrawal,
    Settle,
    SpliceOut,
    TicketBought,
    TicketFound,
    TransactionSent,
    WithdrawalPrepared,
)
from nostrain.core.effects.oracle import (
    ChainLink,
    Credentials,
    CredentialsRead,
    LinkRead,
    OracleAnnounce,
    OracleAnnounced,
    OracleAttest,
    OracleAttested,
)
from nostrain.core.effects.work import (
    Compute,
    Computed,
    DatasetRead,
    Discard,
    Draw,
    Drawn,
    Evict,
    Fetch,
    FetchDataset,
    Fetched,
    Send,
    Sign,
    Signed,
    Upload,
    Uploaded,
)

__all__ = [
    "RETRY",
    "BuyTicket",
    "Cancel",
    "ChainLink",
    "ChannelOpened",
    "CheckDispute",
    "CheckLocks",
    "Compute",
    "Computed",
    "Credentials",
    "CredentialsRead",
    "DatasetRead",
    "Discard",
    "Draw",
    "DrawLocks",
    "Drawn",
    "Effect",
    "EffectBase",
    "Evict",
    "Failed",
    "Fetch",
    "FetchDataset",
    "FetchInvoice",
    "Fetched",
    "FindTicket",
    "HoldInvoice",
    "InvoiceFetched",
    "Invoiced",
    "LinkRead",
    "LockTerms",
    "LocksDrawn",
    "LocksOpened",
    "MakeOffer",
    "OfferMade",
    "Ok",
    "OpenChannel",
    "OpenLocks",
    "OracleAnnounce",
    "OracleAnnounced",
    "OracleAttest",
    "OracleAttested",
    "Outcome",
    "Pay",
    "PayEnded",
    "PayInvoice",
    "PrepareWithdrawal",
    "Prove",
    "Proved",
    "Retry",
    "Send",
    "SendWithdrawal",
    "Settle",
    "Sign",
    "Signed",
    "SpliceOut",
    "TicketBought",
    "TicketFound",
    "TransactionSent",
    "Unheard",
    "Unlock",
    "Unlocked",
    "Upload",
    "Uploaded",
    "WithdrawalPrepared",
]

Effect = (
    Sign
    | Send
    | Draw
    | Fetch
    | FetchDataset
    | Upload
    | Discard
    | Evict
    | Compute
    | Credentials
    | ChainLink
    | OracleAnnounce
    | OracleAttest
    | DrawLocks
    | OpenLocks
    | CheckLocks
    | Unlock
    | HoldInvoice
    | BuyTicket
    | FindTicket
    | Pay
    | Settle
    | Cancel
    | Prove
    | CheckDispute
    | MakeOffer
    | FetchInvoice
    | PayInvoice
    | OpenChannel
    | SpliceOut
    | PrepareWithdrawal
    | SendWithdrawal
)

Outcome = (
    Failed
    | Ok
    | Signed
    | Drawn
    | Fetched
    | DatasetRead
    | Uploaded
    | Computed
    | CredentialsRead
    | LinkRead
    | OracleAnnounced
    | OracleAttested
    | LocksDrawn
    | LocksOpened
    | Unlocked
    | Invoiced
    | TicketBought
    | TicketFound
    | PayEnded
    | Proved
    | Unheard
    | OfferMade
    | InvoiceFetched
    | ChannelOpened
    | WithdrawalPrepared
    | TransactionSent
)


class Retry(Enum):
    """What a restart may do with an effect whose outcome it does not know."""

    IDEMPOTENT = "do it again: the second time changes nothing"
    QUERY_FIRST = "ask the other side what became of it; only then decide"
    RECOMPUTE = "compute it again: nothing had left the process"


RETRY: Final[dict[type[EffectBase], Retry]] = {
    Sign: Retry.RECOMPUTE,
    Send: Retry.IDEMPOTENT,
    Draw: Retry.RECOMPUTE,
    Fetch: Retry.IDEMPOTENT,
    FetchDataset: Retry.IDEMPOTENT,
    Upload: Retry.IDEMPOTENT,
    Discard: Retry.IDEMPOTENT,
    Evict: Retry.IDEMPOTENT,
    Compute: Retry.RECOMPUTE,
    Credentials: Retry.RECOMPUTE,
    ChainLink: Retry.RECOMPUTE,
    OracleAnnounce: Retry.IDEMPOTENT,
    OracleAttest: Retry.IDEMPOTENT,
    DrawLocks: Retry.RECOMPUTE,
    OpenLocks: Retry.RECOMPUTE,
    CheckLocks: Retry.RECOMPUTE,
    Unlock: Retry.RECOMPUTE,
    HoldInvoice: Retry.IDEMPOTENT,
    BuyTicket: Retry.QUERY_FIRST,
    FindTicket: Retry.IDEMPOTENT,
    Pay: Retry.QUERY_FIRST,
    Settle: Retry.IDEMPOTENT,
    Cancel: Retry.IDEMPOTENT,
    Prove: Retry.RECOMPUTE,
    CheckDispute: Retry.RECOMPUTE,
    MakeOffer: Retry.IDEMPOTENT,
    FetchInvoice: Retry.IDEMPOTENT,
    PayInvoice: Retry.QUERY_FIRST,
    OpenChannel: Retry.QUERY_FIRST,
    SpliceOut: Retry.QUERY_FIRST,
    PrepareWithdrawal: Retry.RECOMPUTE,
    SendWithdrawal: Retry.QUERY_FIRST,
}
