"""The books of a node: what each amount of money was for, one entry for each that came, went, or came back. Entries are kept for ever."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from nostrain.units import Digest, EventId, Msat, Pubkey, UnixTime

EntryKind = Literal[
    "settled",
    "paid",
    "refunded",
    "ticket_sold",
    "ticket_bought",
    "ticket_unclaimed",
    "ticket_lost",
    "share_paid",
    "share_received",
    "withdrawn",
]
"""`settled`: a level of ours · `paid`, `refunded`: a level of a worker's was released, or came back to us · tickets: submission fees; `ticket_lost`,
and on the seller's side `ticket_unclaimed`, was paid for and not claimed before its round was over ·
`share_paid`: a validator's of the fees, up to the round that the entry names; `share_received`: on the validator's side, the round being the last
one that it had seen closed · `withdrawn`: went to the operator's own address; `payment_hash` is the transaction's id."""
SIGNS: Final[dict[EntryKind, int]] = {
    "settled": 1,
    "paid": -1,
    "refunded": 0,
    "ticket_sold": 1,
    "ticket_bought": -1,
    "ticket_unclaimed": 1,
    "ticket_lost": -1,
    "share_paid": -1,
    "share_received": 1,
    "withdrawn": 0,
}
"""What an entry's sum does to our balance."""


class LedgerEntry(msgspec.Struct, frozen=True):
    """One amount. `sum_msat` is never negative; `party` is who paid us, or whom we paid."""

    at: UnixTime
    run: EventId
    round: int
    announcement: EventId
    kind: EntryKind
    sum_msat: Msat
    payment_hash: Digest
    party: Pubkey

    @property
    def change_msat(self) -> int:
        """What it did to our balance."""
        return SIGNS[self.kind] * self.sum_msat


class LedgerTotal(msgspec.Struct, frozen=True):
    """All entries of one kind in one run."""

    run: EventId
    kind: EntryKind
    entries: int
    sum_msat: Msat

    @property
    def change_msat(self) -> int:
        """What they did to our balance."""
        return SIGNS[self.kind] * self.sum_msat
