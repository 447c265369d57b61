"""Tickets that bought nothing: who sells them and then locks no money has the fee, and nobody can prove it (decisions 25 and 47).

After n of them in a row a worker lets 2ⁿ − 1 rounds of this run pass before it buys another, 63 at most: what such a coordinator can take grows
with the logarithm of the rounds, and one whose node was down for an hour is forgiven with the first escrow that it locks.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.escrow.rows import Payee
from nostrain.core.escrow.ticket import charged
from nostrain.core.rounds.epoch import anchor_of
from nostrain.core.rows import Round, Run, Submission
from nostrain.core.transaction import Transaction

MOST: Final = 6
"""Tickets in vain that still lengthen the wait."""


def exhausted(tx: Transaction, run: Run) -> bool:
    """Whether the next round is one to let pass; it is counted off."""
    memory = tx.memory
    if not memory.pass_over or not charged(run.manifest):
        return False
    tx.put("worker", msgspec.structs.replace(memory, pass_over=memory.pass_over - 1))
    return True


def remember(tx: Transaction, round_: Round, mine: Submission, *, unsold: bool = False) -> None:
    """Our submission ended: whether its ticket bought a lock. `unsold`: it never came, and may be paid all the same."""
    if mine.ticket is None and not unsold:
        return
    memory = tx.memory
    if was_locked(tx, round_):
        tx.put("worker", msgspec.structs.replace(memory, in_vain=0, pass_over=0))
        return
    in_vain = min(memory.in_vain + 1, MOST)
    tx.put("worker", msgspec.structs.replace(memory, in_vain=in_vain, pass_over=2**in_vain - 1))
    did = "gave us no ticket" if mine.ticket is None else "sold us a ticket and locked nothing"
    tx.note(
        "warning",
        "tickets_in_vain",
        f"round {round_.announcement.round}: the coordinator {did}; we let {2**in_vain - 1} rounds pass",
    )


def was_locked(tx: Transaction, round_: Round) -> bool:
    """Whether every level of the round's escrow (in an epoch, that of its first round) was held at some time."""
    anchor = anchor_of(tx, tx.need("run", Run).manifest, round_.announcement.round)
    row = tx.get(f"payee/{anchor.id}", Payee) if anchor is not None else None
    return row is not None and bool(row.levels) and all(level.cltv_expiry is not None for level in row.levels)
