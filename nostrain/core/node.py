"""The only router: one input steps every machine that it touches, then the policies decide until nothing changes any more (design section 4)."""

from __future__ import annotations

from typing import Final, assert_never

import msgspec

from nostrain.core import (
    ahead,
    cache,
    calibration,
    coordinator,
    enrolment,
    epoch_duty,
    outbox,
    preparation,
    replica,
    retention,
    validator,
    worker,
)
from nostrain.core.effects import Effect, FindTicket, Outcome
from nostrain.core.escrow import income, offers, payee, payer, share, ticket
from nostrain.core.fraud import disputes
from nostrain.core.fraud.evidence import remember
from nostrain.core.identity import Identity
from nostrain.core.inputs import Block, Boot, Done, HoldChanged, Input, InvoicePaid, NodeChanged, Received, Tick, TicketRedeemed
from nostrain.core.pruning import prune
from nostrain.core.rounds.round import fold_round
from nostrain.core.rows import Chain, NodeState, Outstanding, Started, Waiting
from nostrain.core.run import Equivocation, discredit, fold_announcement, fold_enrolment, fold_manifest
from nostrain.core.timing import moments
from nostrain.core.transaction import Note, Transaction
from nostrain.core.treasury import liquidity, openings, withdrawals
from nostrain.core.waiting import Orphan, forget, keys_of, wait, waiting_for
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.ledger import LedgerEntry
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Announcement, Choice, Dispute, Enrolment, Invoices, Message, Offer, Openings, Result
from nostrain.units import UnixTime

MAX_PASSES: Final = 64
"""Policies settle in a handful of passes; more means that two of them undo each other."""


class Step(msgspec.Struct, frozen=True):
    """What one input led to: the state after it, the effects to start, what to tell a person, and what to enter in the ledger."""

    state: NodeState
    effects: tuple[Effect, ...]
    notes: tuple[Note, ...]
    entries: tuple[LedgerEntry, ...] = ()


def step(state: NodeState, input_: Input, now: UnixTime) -> Step:
    """Take one input at `now`. A duplicate changes nothing.

    Raises IllegalTransition or LocalProtocolError when this program contradicts itself; `state` is untouched then. What others did wrong is
    a note, never an exception.
    """
    tx = Transaction(state, now)
    match input_:
        case Boot(identity=identity):
            boot(tx, identity)
        case Received(message=message):
            receive(tx, message)
        case Done(effect=effect, outcome=outcome):
            finish(tx, effect, outcome)
        case HoldChanged():
            payee.hold_changed(tx, input_.payment_hash, input_.state, input_.amount_msat, input_.cltv_expiry)
        case TicketRedeemed():
            ticket.redeemed(tx, input_)
        case InvoicePaid():
            income.paid(tx, input_)
        case Block(height=height):
            tx.put("height", Chain(height))
        case NodeChanged():
            liquidity.changed(tx, input_)
        case Tick():
            pass
        case _:
            assert_never(input_)
    if tx.get("node", Identity) is not None:
        settle(tx)
    effects = tuple(effect for effect in tx.emitted if tx.outstanding(effect.id) is effect)
    return Step(tx.result(), effects, tuple(tx.notes), tuple(tx.entries))


def boot(tx: Transaction, identity: Identity) -> None:
    """Take the configuration. A journal belongs to one key for ever."""
    before = tx.get("node", Identity)
    if before is not None and before.pubkey != identity.pubkey:
        raise LocalProtocolError(f"the journal belongs to {before.pubkey}, the key is {identity.pubkey}")
    tx.put("node", identity)
    tx.put("started", Started(tx.now))
    tx.delete("height")  # an old one: until our node says how high the chain is now, nothing is settled
    tx.delete(liquidity.KEY)  # until it is heard of, no paid round is begun


def receive(tx: Transaction, message: Message) -> None:
    """Fold a message, and after it whatever was waiting for it."""
    if tx.get(f"waiting/{message.id}", Waiting) is not None:
        return
    pending = [message]
    while pending:
        current = pending.pop(0)
        if fold(tx, current):
            pending += waiting_for(tx, keys_of(current))
            if isinstance(current.body, Result) and tx.run is not None:
                forget(tx, tx.run)


def fold(tx: Transaction, message: Message) -> bool:
    """Fold one message; whether that changed something for others. It is kept while what it refers to is missing."""
    before, refused = tx.version, False
    try:
        route(tx, message)
    except Orphan as orphan:
        wait(tx, message, orphan.missing)
        return False
    except RemoteProtocolError as error:
        refused = True
        tx.note("warning", "messages_refused", str(error))
        if isinstance(error, Equivocation):
            discredit(tx, message.author, str(error))
    changed = tx.version != before
    remember(tx, message, taken=changed and not refused)
    tx.delete(f"waiting/{message.id}")
    return changed


def route(tx: Transaction, message: Message) -> None:
    """Give the message to the one fold that it belongs to."""
    body = message.body
    match body:
        case RunManifest():
            fold_manifest(tx, message, body)
        case Enrolment():
            fold_enrolment(tx, message, body)
        case Announcement():
            fold_announcement(tx, message, body)
        case Offer():
            if message.author != tx.me.pubkey:
                offers.fold_offer(tx, message, body)
        case Openings():
            if message.author != tx.me.pubkey:
                offers.fold_openings(tx, message, body)
        case Choice() | Invoices():
            if message.author != tx.me.pubkey:
                payer.fold(tx, message, body)
        case Dispute():
            disputes.fold(tx, message, body)
        case _:
            fold_round(tx, message, body)


def finish(tx: Transaction, effect_id: str, outcome: Outcome) -> None:
    """Hand an outcome to the machine that asked. One that is not outstanding (any more) is a duplicate."""
    effect = tx.outstanding(effect_id)
    if effect is None:
        return
    tx.delete(f"effect/{effect_id}")
    owner = effect.owner
    match owner.partition("/")[0]:
        case "outbox":
            said = outbox.done(tx, owner, outcome)
            if said is not None:
                receive(tx, said)
        case "replica":
            replica.done(tx, effect.name, outcome)
        case calibration.KEY:
            calibration.done(tx, outcome)
        case "enrolment":
            enrolment.done(tx, outcome)
        case "work":
            worker.done(tx, owner, effect.name, outcome)
        case "ahead":
            ahead.done(tx, owner, outcome)
        case "duty":
            validator.done(tx, owner, effect.name, outcome)
        case "epoch":
            epoch_duty.done(tx, owner, outcome)
        case "preparation":
            preparation.done(tx, effect.name, outcome)
        case "lead":
            coordinator.done(tx, owner, effect.name, outcome)
        case "payer":
            payer.done(tx, owner, effect.name, outcome)
        case "payee":
            payee.done(tx, owner, effect.name, outcome)
        case "suspicion" | "complaint":
            disputes.done(tx, owner, effect.name, outcome)
        case retention.KEY | cache.KEY:
            pass
        case "opening":
            openings.done(tx, owner, outcome)
        case withdrawals.KEY:
            withdrawals.done(tx, outcome)
        case "share":
            share.done(tx, owner, effect.name, outcome)
        case "purchase" if isinstance(effect, FindTicket):
            ticket.found(tx, effect, outcome)
        case other:
            raise LocalProtocolError(f"no machine {other!r} for effect {effect_id}")


def settle(tx: Transaction) -> None:
    """Let every policy decide until a whole pass changes nothing."""
    behind = len(tx.run.results) if tx.run is not None else 0  # a replica that catches up takes an empty round a pass
    for _ in range(MAX_PASSES + 2 * behind):
        before = tx.version
        for machine in (
            calibration,
            enrolment,
            replica,
            preparation,
            coordinator,
            payer,
            share,
            income,
            openings,
            withdrawals,
            validator,
            epoch_duty,
            payee,
            ahead,
            worker,
            disputes,
            outbox,
            retention,
            cache,
        ):
            machine.decide(tx)
        prune(tx)
        if tx.version == before:
            return
    raise LocalProtocolError("the policies do not come to rest")


def next_deadline(state: NodeState, after: UnixTime) -> UnixTime | None:
    """The first moment after `after` at which time alone may change something: the shell's only timer."""
    return min((UnixTime(at) for at in moments(state) if at > after), default=None)


def outstanding(state: NodeState) -> tuple[Effect, ...]:
    """Every effect whose outcome is not committed: what a restart resumes."""
    return tuple(row.effect for row in state.rows.values() if isinstance(row, Outstanding))
