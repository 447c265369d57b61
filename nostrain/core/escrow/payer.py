"""The payer of escrows: draws the locks, offers them, opens what the payee did not choose, pays the hold invoices.

A payment's result is its preimage or its certain failure; in between it is PAYING, and after a restart the Lightning node is asked, never told again.
"""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Draw, DrawLocks, Drawn, LocksDrawn, LocksOpened, OpenLocks, Outcome, Pay, PayEnded
from nostrain.core.escrow.rows import Payer, PayerLevel
from nostrain.core.escrow.terms import amounts, oracles_of, terms
from nostrain.core.escrow.ticket import holds_ticket
from nostrain.core.rounds.epoch import opens
from nostrain.core.rows import Round, Run
from nostrain.core.tables import PayerState, advance
from nostrain.core.timing import oracles_by
from nostrain.core.transaction import Transaction
from nostrain.errors import IllegalTransition, RemoteProtocolError
from nostrain.protocol.messages import Choice, Invoices, Message, Offer, Openings, OracleItem
from nostrain.units import Digest, Pubkey

P = PayerState
ENDED = (P.PAID, P.FAILED)


def decide(tx: Transaction) -> None:
    """Start an escrow with every worker of the open round whose thermometers are announced; emit what each row calls for."""
    run = tx.run
    if run is None or run.coordinator != tx.me.pubkey or run.manifest.settlement.mode != "hold":
        return
    round_ = tx.get(f"round/{run.open}", Round)
    if round_ is not None and opens(run, round_) and not run.halted and tx.now <= round_.announcement.deadlines.commit_by:
        for worker in round_.announcement.workers:
            if (
                tx.get(key_of(round_, worker), Payer) is None
                and holds_ticket(tx, run, round_, worker)
                and oracles_ready(tx, run, round_, worker)
            ):
                tx.put(key_of(round_, worker), Payer(announcement=round_.id, payee=worker))
    for key in tx.keys("payer/"):
        row = tx.need(key, Payer)
        if not row.levels or any(level.state not in ENDED for level in row.levels):
            step(tx, run, tx.need(f"round/{row.announcement}", Round), key, row)


def key_of(round_: Round, worker: Pubkey) -> str:
    """Row key of one escrow."""
    return f"payer/{round_.id}/{worker}"


def oracles_ready(tx: Transaction, run: Run, round_: Round, worker: Pubkey) -> bool:
    """All oracles have announced, or a third of the commit window has passed and at least t have."""
    announced = len(trusted(run, round_, worker))
    waited = tx.now > oracles_by(run, round_)
    return announced == len(round_.announcement.validators) or (waited and announced >= run.manifest.threshold)


def trusted(run: Run, round_: Round, worker: Pubkey) -> tuple[tuple[int, OracleItem], ...]:
    """The oracles that an offer may be bound to: those that did not contradict themselves, if there are enough of them."""
    every = oracles_of(run, round_, worker)
    honest = tuple(pair for pair in every if round_.announcement.validators[pair[0] - 1].pubkey not in run.faulty)
    return honest if len(honest) >= run.manifest.threshold else every


def used(run: Run, round_: Round, row: Payer) -> tuple[tuple[int, OracleItem], ...]:
    """The oracles that this escrow's offer is bound to: those known when it was drawn."""
    return oracles_of(run, round_, row.payee, row.oracles or None)


def step(tx: Transaction, run: Run, round_: Round, key: str, row: Payer) -> None:
    """Emit what the row calls for; give up what was never offered or invoiced in time, or before the run was halted."""
    if tx.now > round_.announcement.deadlines.commit_by or round_.result is not None or run.halted:
        give_up(tx, key, row)
        return
    if not row.seeds:
        tx.emit(Draw(owner=key, name="seeds", size=32 * len(amounts(run))))
    elif row.levels[0].state is P.DRAWN:
        tx.emit(DrawLocks(owner=key, name="locks", terms=terms(tx, run, round_, row.payee, used(run, round_, row)), seeds=row.seeds))
    elif row.chosen and row.levels[0].lock is None:
        opening = OpenLocks(
            owner=key, name="open", terms=terms(tx, run, round_, row.payee, used(run, round_, row)), seeds=row.seeds, chosen=row.chosen
        )
        tx.emit(opening)
    for index, level in enumerate(row.levels):
        if level.state is P.INVOICED and level.bolt11 is not None and level.lock is not None:
            pay = Pay(
                owner=key,
                name=f"pay:{index}",
                bolt11=level.bolt11,
                payment_hash=level.lock.payment_hash,
                amount_msat=amounts(run)[index],
            )
            tx.put(key, set_level(tx.need(key, Payer), index, state=P.PAYING))
            tx.emit(pay)


def give_up(tx: Transaction, key: str, row: Payer) -> None:
    """Nothing that is not being paid yet will be."""
    for name in ("seeds", "locks", "open"):
        tx.withdraw(key, name)
    for index, level in enumerate(row.levels):
        if level.state in (P.DRAWN, P.OFFERED, P.INVOICED):
            row = set_level(row, index, state=P.FAILED)
    tx.put(key, row)


def set_level(row: Payer, index: int, *, state: PayerState, preimage: str | None = None) -> Payer:
    """The row with one level moved on."""
    level = row.levels[index]
    moved = msgspec.structs.replace(level, state=advance("payer", level.state, state), preimage=preimage or level.preimage)
    return msgspec.structs.replace(row, levels=(*row.levels[:index], moved, *row.levels[index + 1 :]))


def done(tx: Transaction, key: str, name: str, outcome: Outcome) -> None:
    """Take an outcome of one of the escrow's effects."""
    row, run = tx.get(key, Payer), tx.run
    if row is None or run is None:
        return
    round_ = tx.need(f"round/{row.announcement}", Round)
    match outcome:
        case Drawn(data=data):
            seeds = tuple(Digest(data[start : start + 64]) for start in range(0, len(data), 64))
            digests = tuple(item.digest for _, item in trusted(run, round_, row.payee))
            tx.put(key, msgspec.structs.replace(row, seeds=seeds, oracles=digests, levels=tuple(PayerLevel(P.DRAWN) for _ in seeds)))
        case LocksDrawn(instances=instances):
            offer(tx, run, round_, key, row, instances)
        case LocksOpened(seeds=opened, locks=locks):
            levels = tuple(msgspec.structs.replace(level, lock=lock) for level, lock in zip(row.levels, locks, strict=True))
            tx.put(key, msgspec.structs.replace(row, levels=levels))
            assert row.offer is not None
            body = Openings(run=run.id, announcement=round_.id, round=round_.announcement.round, offer=row.offer, seeds=opened, locks=locks)
            tx.say(f"{key}/openings", body, recipient=row.payee)
        case PayEnded(preimage=preimage):
            index = int(name.partition(":")[2])
            lock = row.levels[index].lock
            assert lock is not None  # what has no lock is not paid
            tx.book("paid" if preimage else "refunded", round_, amounts(run)[index], lock.payment_hash, row.payee)
            tx.put(key, set_level(row, index, state=P.PAID if preimage else P.FAILED, preimage=preimage))
            said = "was released" if preimage else "came back"
            tx.note("info", "payments_ended", f"level {index + 1} of {row.payee[:8]} in round {round_.announcement.round} {said}")
        case _:
            raise IllegalTransition(f"{key}: {name} ended with {type(outcome).__name__}")


def offer(tx: Transaction, run: Run, round_: Round, key: str, row: Payer, instances: tuple[tuple[Digest, ...], ...]) -> None:
    """Send the offer: digests only, so that nothing can be taken back after the choice."""
    body = Offer(
        run=run.id,
        announcement=round_.id,
        round=round_.announcement.round,
        payee=row.payee,
        amounts_msat=amounts(run),
        oracles=row.oracles,
        instances=instances,
    )
    tx.say(f"{key}/offer", body, recipient=row.payee)
    for index in range(len(row.levels)):
        row = set_level(row, index, state=P.OFFERED)
    tx.put(key, row)


def fold(tx: Transaction, message: Message, body: Choice | Invoices) -> None:
    """The payee's answer to our offer. The first counts; anything that does not fit it is refused."""
    key = f"payer/{body.announcement}/{message.author}"
    row = tx.get(key, Payer)
    said = tx.said(f"{key}/offer")
    if row is None or said is None or said.event_id is None or said.event_id != body.offer:
        raise RemoteProtocolError(type(body).__name__.lower(), "answers no offer of ours", whose=message.author[:8])
    if isinstance(body, Choice):
        instances = tx.need("run", Run).manifest.settlement.instances
        if len(body.chosen) != len(row.levels) or not all(0 <= index < instances for index in body.chosen):
            raise RemoteProtocolError("choice", f"{body.chosen} is not one instance for each level", whose=message.author[:8])
        if not row.chosen:
            tx.put(key, msgspec.structs.replace(row, chosen=body.chosen, offer=body.offer))
    elif len(body.bolt11) != len(row.levels) or row.levels[0].lock is None:
        raise RemoteProtocolError("invoices", "not one for each level that was opened", whose=message.author[:8])
    elif row.levels[0].state is P.OFFERED:
        levels = tuple(
            msgspec.structs.replace(level, bolt11=bolt11, state=advance("payer", level.state, P.INVOICED))
            for level, bolt11 in zip(row.levels, body.bolt11, strict=True)
        )
        tx.put(key, msgspec.structs.replace(row, levels=levels))
