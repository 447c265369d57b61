"""The only router: one input steps every machine that it touches, then the policies decide until nothing changes any more (design section 4)."""

from __future__ import annotations

from typing import Final, assert_never

import msgspec

from nostrain.core import coordinator, enrolment, outbox, payee, payer, replica, validator, worker
from nostrain.core.effects import Effect, Outcome
from nostrain.core.inputs import Block, Boot, Done, HoldChanged, Input, Received, Tick
from nostrain.core.round import fold_round
from nostrain.core.rows import Chain, Identity, NodeState, Orphans, Outbox, Outstanding, Payee, Payer, Replica, Round, Run
from nostrain.core.run import Orphan, fold_announcement, fold_enrolment, fold_manifest
from nostrain.core.tables import PayeeState, PayerState
from nostrain.core.transaction import Note, Transaction
from nostrain.errors import LocalProtocolError, RemoteProtocolError
from nostrain.protocol.limits import MAX_CLOCK_SKEW_S, MAX_ORPHANS, MAX_ORPHANS_EACH
from nostrain.protocol.manifest import RunManifest
from nostrain.protocol.messages import Announcement, Choice, Enrolment, Invoices, Message, Offer, Openings
from nostrain.units import UnixTime

KEEP_ROUNDS: Final = 8
"""Rounds whose rows are kept after their result: what plausibility checks, audits and late messages still need."""
MAX_PASSES: Final = 64
"""Policies settle in a handful of passes; more means that two of them undo each other."""


class Step(msgspec.Struct, frozen=True):
    """What one input led to: the state after it, the effects to start, and what to tell a person."""

    state: NodeState
    effects: tuple[Effect, ...]
    notes: tuple[Note, ...]


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
        case Block(height=height):
            tx.put("height", Chain(height))
        case Tick():
            pass
        case _:
            assert_never(input_)
    if tx.get("node", Identity) is not None:
        settle(tx)
    effects = tuple(effect for effect in tx.emitted if tx.outstanding(effect.id) is not None)
    return Step(tx.result(), effects, tuple(tx.notes))


def boot(tx: Transaction, identity: Identity) -> None:
    """Take the configuration. A journal belongs to one key for ever."""
    before = tx.get("node", Identity)
    if before is not None and before.pubkey != identity.pubkey:
        raise LocalProtocolError(f"the journal belongs to {before.pubkey}, the key is {identity.pubkey}")
    tx.put("node", identity)


def receive(tx: Transaction, message: Message) -> None:
    """Fold a message, and after it whatever was waiting for it."""
    if message.created_at > tx.now + MAX_CLOCK_SKEW_S:
        tx.note(
            "warning",
            "messages_refused",
            f"event {message.id[:8]} from {message.author[:8]} is dated {message.created_at - tx.now} s ahead",
        )
        return
    waiting = tx.get("orphans", Orphans) or Orphans()
    if any(orphan.id == message.id for orphan in waiting.messages):
        return
    pending, progress = [*waiting.messages], fold(tx, message)
    if progress is None:
        pending = adopt(tx, [*pending, message])
    while progress:
        progress = False
        for orphan in list(pending):
            folded = fold(tx, orphan)
            if folded is not None:
                pending.remove(orphan)
                progress = progress or folded
    if tuple(pending) != waiting.messages:
        tx.put("orphans", Orphans(tuple(pending)))


def adopt(tx: Transaction, pending: list[Message]) -> list[Message]:
    """Those of `pending`, the newest last, that there is room for: of each author only the newest; of strangers fewer than of participants."""
    author = pending[-1].author
    own = [message for message in pending if message.author == author]
    crowd = own if len(own) > MAX_ORPHANS_EACH else pending if len(pending) > MAX_ORPHANS else []
    if not crowd:
        return pending
    run = tx.run
    round_ = tx.get(f"round/{run.open}", Round) if run is not None else None
    known = {run.coordinator} if run is not None else set()
    if round_ is not None:
        known |= {*round_.announcement.workers, *(entry.pubkey for entry in round_.announcement.validators)}
    dropped = next((message for message in crowd if message.author not in known), crowd[0])
    tx.note("warning", "orphans_dropped", f"gave up waiting for what event {dropped.id[:8]} from {dropped.author[:8]} refers to")
    return [message for message in pending if message is not dropped]


def fold(tx: Transaction, message: Message) -> bool | None:
    """Fold one message: True if it changed something, False if not, None if what it refers to is still missing."""
    before = dict(tx.changed)
    try:
        route(tx, message)
    except Orphan:
        return None
    except RemoteProtocolError as error:
        tx.note("warning", "messages_refused", str(error))
    return tx.changed != before


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
                payee.fold_offer(tx, message, body)
        case Openings():
            if message.author != tx.me.pubkey:
                payee.fold_openings(tx, message, body)
        case Choice() | Invoices():
            if message.author != tx.me.pubkey:
                payer.fold(tx, message, body)
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
        case "enrolment":
            enrolment.done(tx, outcome)
        case "work":
            worker.done(tx, owner, effect.name, outcome)
        case "duty":
            validator.done(tx, owner, effect.name, outcome)
        case "lead" | "preparation":
            coordinator.done(tx, owner, effect.name, outcome)
        case "payer":
            payer.done(tx, owner, effect.name, outcome)
        case "payee":
            payee.done(tx, owner, effect.name, outcome)
        case other:
            raise LocalProtocolError(f"no machine {other!r} for effect {effect_id}")


def settle(tx: Transaction) -> None:
    """Let every policy decide until a whole pass changes nothing."""
    for _ in range(MAX_PASSES):
        before = dict(tx.changed)
        for machine in (enrolment, replica, coordinator, payer, validator, payee, worker, outbox):
            machine.decide(tx)
        prune(tx)
        if tx.changed == before:
            return
    raise LocalProtocolError("the policies do not come to rest")


def prune(tx: Transaction) -> None:
    """Drop the rows of rounds long closed, once no money hangs on them."""
    run = tx.run
    if run is None or run.round <= KEEP_ROUNDS:
        return
    for key in tx.keys("round/"):
        round_ = tx.need(key, Round)
        if round_.announcement.round > run.round - KEEP_ROUNDS or money_open(tx, round_):
            continue
        following = tx.get("replica", Replica)
        if following is None or following.round < round_.announcement.round:
            continue
        tx.delete(key)
        for prefix in (f"work/{round_.id}", f"duty/{round_.id}", f"lead/{round_.id}", f"payer/{round_.id}", f"payee/{round_.id}"):
            for row in list(tx.keys(prefix)):
                tx.delete(row)
        for row in list(tx.keys("outbox/")):
            if round_.id in row and tx.need(row, Outbox).stage in ("sent", "refused"):
                tx.delete(row)


def money_open(tx: Transaction, round_: Round) -> bool:
    """Whether an escrow of the round has not ended."""
    payers = (tx.need(key, Payer) for key in tx.keys(f"payer/{round_.id}"))
    payees = (tx.need(key, Payee) for key in tx.keys(f"payee/{round_.id}"))
    unpaid = any(level.state not in (PayerState.PAID, PayerState.FAILED) for row in payers for level in row.levels)
    return unpaid or any(level.state not in (PayeeState.SETTLED, PayeeState.CANCELLED) for row in payees for level in row.levels)


def next_deadline(state: NodeState, after: UnixTime) -> UnixTime | None:
    """The first moment after `after` at which time alone may change something: the shell's only timer."""
    moments: list[int] = []
    run = state.rows.get("run")
    for key, row in state.rows.items():
        if key.startswith("round/") and isinstance(row, Round):
            limits = row.announcement.deadlines
            moments += [at + 1 for at in msgspec.structs.astuple(limits)]
            if isinstance(run, Run):
                timing = run.manifest.timing
                moments += [limits.attest_by + timing.grace_s + 1, limits.commit_by - timing.commit_s * 2 // 3 + 1]
    return min((UnixTime(at) for at in moments if at > after), default=None)


def outstanding(state: NodeState) -> tuple[Effect, ...]:
    """Every effect whose outcome is not committed: what a restart resumes."""
    return tuple(row.effect for row in state.rows.values() if isinstance(row, Outstanding))
