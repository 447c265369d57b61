"""What our Lightning node has still to do for this journal: without it none of that can end, and nothing of it may be forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nostrain.core.effects import BuyTicket, FindTicket, MakeOffer
from nostrain.core.escrow.payee import ENDED as PAYEE_ENDED
from nostrain.core.escrow.rows import Dues, Payee, Payer, Share
from nostrain.core.escrow.share import LEAST_MSAT, uncredited
from nostrain.core.escrow.share import OPEN as SHARE_OPEN
from nostrain.core.identity import Identity
from nostrain.core.rows import NodeState, Outstanding, Run
from nostrain.core.tables import OpeningState, PayerState, WithdrawalState
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.opening_rows import Opening
from nostrain.core.treasury.withdrawal_rows import Withdrawal
from nostrain.protocol.manifest import SAT
from nostrain.units import UnixTime

ASKED: Final = (WithdrawalState.SPLICING, WithdrawalState.PREPARING, WithdrawalState.SENDING)


def unsettled(state: NodeState) -> tuple[str, ...]:
    """A line for each thing, the largest obligations first; none: nothing is lost when the node is taken away."""
    return tuple(line for lines in (leads(state), escrows(state), shares(state), on_chain(state), purchases(state)) for line in lines)


def leads(state: NodeState) -> Iterator[str]:
    """A run that pays, and that we coordinate, as long as it goes on or somebody's share of its fees is not counted."""
    run, me = state.rows.get("run"), state.rows.get("node")
    if not isinstance(run, Run) or not isinstance(me, Identity) or run.coordinator != me.pubkey or run.halted is not None:
        return
    if run.manifest.settlement.mode != "none" and (not run.finished or uncredited(Transaction(state, UnixTime(0)), run, run.round)):
        yield f"run {run.id[:8]}, which we lead, pays"


def escrows(state: NodeState) -> Iterator[str]:
    """Levels that are being paid, or may be paid to us."""
    for key in (*state.groups.get("payer", ()), *state.groups.get("payee", ())):
        row = state.rows[key]
        if isinstance(row, Payer) and (count := sum(level.state is PayerState.PAYING for level in row.levels)):
            yield f"{count} levels that are locked for worker {row.payee[:8]} (round {row.announcement[:8]})"
        elif isinstance(row, Payee) and (count := sum(level.state not in PAYEE_ENDED for level in row.levels)):
            yield f"{count} levels of ours that are, or may be, locked for us (round {row.announcement[:8]})"


def shares(state: NodeState) -> Iterator[str]:
    """What validators have of the fees."""
    for key in state.groups.get("dues", ()):
        dues = state.rows[key]
        if not isinstance(dues, Dues):
            continue
        payment = state.rows.get(f"share/{dues.validator}/{dues.payments}")
        under_way = payment.amount_msat if isinstance(payment, Share) and payment.state in SHARE_OPEN else 0
        if under_way or dues.due_msat >= LEAST_MSAT:
            yield f"{(dues.due_msat + under_way) // SAT} sat of the fees for validator {dues.validator[:8]}"


def on_chain(state: NodeState) -> Iterator[str]:
    """Channels that are being opened, and money on its way to the operator."""
    for key in state.groups.get("opening", ()):
        row = state.rows[key]
        if isinstance(row, Opening) and row.state is OpeningState.OPENING:
            yield f"a channel of {row.capacity_msat // SAT} sat that is being opened to worker {row.worker[:8]}"
    last = state.rows.get("withdrawal")
    if isinstance(last, Withdrawal) and last.state in ASKED:
        yield f"withdrawal {last.number} to {last.address} ({last.state.value})"


def purchases(state: NodeState) -> Iterator[str]:
    """Tickets that may be paid, and an offer that is half made."""
    for key in state.groups.get("effect", ()):
        row = state.rows[key]
        match row.effect if isinstance(row, Outstanding) else None:
            case BuyTicket(announcement=announcement) | FindTicket(announcement=announcement):
                yield f"a ticket that may be paid (round {announcement[:8]})"
            case MakeOffer():
                yield "the offer to which our shares of the fees are to be paid"
            case _:
                pass
