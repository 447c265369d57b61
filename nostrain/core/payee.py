"""The payee of an escrow: chooses what to have opened, checks it, makes the hold invoices, and settles what t validators attested.

Before its levels are HELD it commits to nothing. It settles with an attested preimage only, never within 24 blocks of an HTLC's expiry, and
cancels what can no longer be released: nothing is held for longer than the round needs.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.effects import Cancel, CheckLocks, Draw, Drawn, Failed, HoldInvoice, Invoiced, Ok, Outcome, Settle, Unlock, Unlocked
from nostrain.core.escrow import amounts, oracles_of, terms
from nostrain.core.rows import Chain, Payee, PayeeLevel, Round, Run
from nostrain.core.run import Orphan
from nostrain.core.tables import PayeeState, advance
from nostrain.core.transaction import Transaction
from nostrain.errors import IllegalTransition, RemoteProtocolError
from nostrain.protocol.messages import AttestationItem, Choice, Invoices, Message, Offer, Openings, OracleItem
from nostrain.units import BlockHeight, Digest, Msat

Y = PayeeState
ENDED = (Y.SETTLED, Y.CANCELLED)
SAFETY_BLOCKS: Final = 24
"""From so many blocks before an HTLC's expiry we cancel and never settle (design section 6, Deadlines)."""
INVOICE_EXPIRY_S: Final = 3600


def locked(tx: Transaction, run: Run, round_: Round) -> bool:
    """Whether the money for our work is held: then, and only then, we commit. True in a run that is not paid."""
    if run.manifest.settlement.mode == "none":
        return True
    row = tx.get(f"payee/{round_.id}", Payee)
    return row is not None and bool(row.levels) and all(level.state is Y.HELD for level in row.levels)


def decide(tx: Transaction) -> None:
    """Emit what each escrow of ours calls for."""
    run = tx.run
    if run is None:
        return
    for key in tx.keys("payee/"):
        row = tx.need(key, Payee)
        round_ = tx.need(f"round/{row.announcement}", Round)
        if not row.chosen and row.refused is None:
            tx.emit(Draw(owner=key, name="choice", size=4 * len(row.instances)))
        if row.levels and row.refused is None and all(level.state is not Y.OFFERED for level in row.levels):
            invoice(tx, run, round_, key, row)
        for index in range(len(row.levels)):
            step_level(tx, run, round_, key, index)


def invoice(tx: Transaction, run: Run, round_: Round, key: str, row: Payee) -> None:
    """Make the invoices of the checked levels; send them when all are there."""
    for index, level in enumerate(row.levels):
        if level.state is Y.CHECKED and level.lock is not None and level.bolt11 is None:
            tx.emit(
                HoldInvoice(
                    owner=key,
                    name=f"invoice:{index}",
                    payment_hash=level.lock.payment_hash,
                    amount_msat=row.amounts_msat[index],
                    min_final_cltv=run.manifest.settlement.min_final_cltv,
                    expiry_s=INVOICE_EXPIRY_S,
                )
            )
    bolt11 = tuple(level.bolt11 for level in row.levels if level.bolt11 is not None)
    if len(bolt11) == len(row.levels) and row.offer_id is not None and tx.said(f"{key}/invoices") is None:
        body = Invoices(run=run.id, announcement=round_.id, round=round_.announcement.round, offer=row.offer_id, bolt11=bolt11)
        tx.say(f"{key}/invoices", body, recipient=run.coordinator)
        for index in range(len(row.levels)):
            row = moved(row, index, Y.INVOICED)
        tx.put(key, row)


def step_level(tx: Transaction, run: Run, round_: Round, key: str, index: int) -> None:
    """Release one level when it is attested; cancel it when it cannot be any more."""
    row = tx.need(key, Payee)
    level = row.levels[index]
    if level.state in ENDED:
        return
    chain = tx.get("height", Chain)
    height = chain.height if chain is not None else BlockHeight(0)
    expiring = level.cltv_expiry is not None and height + SAFETY_BLOCKS >= level.cltv_expiry
    if level.state is Y.HELD and not expiring:
        signed = attestations(round_, row, index + 1)
        if len(signed) >= run.manifest.threshold:
            row = moved(row, index, Y.RELEASABLE)
            tx.put(key, row)
            level = row.levels[index]
    if level.state is Y.RELEASABLE and not expiring:
        assert level.lock is not None
        bound = terms(tx, run, round_, tx.me.pubkey, bound_oracles(round_, row))
        scalars = tuple((oracle, item.scalars[: index + 1]) for oracle, item in attestations(round_, row, index + 1))
        tx.emit(Unlock(owner=key, name=f"unlock:{index}", terms=bound, level=index + 1, lock=level.lock, scalars=scalars))
    elif level.state is Y.SETTLING:
        assert level.preimage is not None
        tx.emit(Settle(owner=key, name=f"settle:{index}", preimage=level.preimage))
    elif expiring or hopeless(tx, run, round_, level):
        cancel(tx, key, index)


def hopeless(tx: Transaction, run: Run, round_: Round, level: PayeeLevel) -> bool:
    """Whether no attestation that could release the level is still to come, or the money was not there in time."""
    deadlines, timing = round_.announcement.deadlines, run.manifest.timing
    if level.state not in (Y.HELD, Y.RELEASABLE):
        return tx.now > deadlines.commit_by or round_.result is not None
    everyone = bool(round_.acknowledgements) and set(round_.acknowledgements) <= round_.attested
    return tx.now > deadlines.attest_by + timing.grace_s or (round_.result is not None and everyone)


def cancel(tx: Transaction, key: str, index: int) -> None:
    """Give the level's money back, if any was ever held."""
    row = tx.need(key, Payee)
    level = row.levels[index]
    tx.withdraw(f"{key}#unlock:{index}")
    tx.withdraw(f"{key}#invoice:{index}")
    if level.lock is not None:
        tx.emit(Cancel(owner=key, name=f"cancel:{index}", payment_hash=level.lock.payment_hash))
    tx.put(key, moved(row, index, Y.CANCELLED))


def attestations(round_: Round, row: Payee, level: int) -> tuple[tuple[int, AttestationItem], ...]:
    """Attestations of the offer's oracles that open `level`, one of each, with the oracle's index."""
    bound = {(item.oracle, item.nonces): index for index, item in bound_oracles(round_, row)}
    found: dict[int, AttestationItem] = {}
    for _, attestation in round_.attestations.values():
        for item in attestation.items:
            index = bound.get((item.oracle, item.nonces))
            if index is not None and item.payee == row.payee and sum(item.digits) >= level:
                found[index] = item
    return tuple(sorted(found.items()))


def bound_oracles(round_: Round, row: Payee) -> tuple[tuple[int, OracleItem], ...]:
    """The oracles that the offer is bound to."""
    return oracles_of(round_, row.payee, row.oracles)


def moved(row: Payee, index: int, state: PayeeState, **fields: object) -> Payee:
    """The row with one level moved on, and `fields` of it set."""
    level = row.levels[index]
    after = msgspec.structs.replace(level, state=advance("payee", level.state, state), **fields)
    return msgspec.structs.replace(row, levels=(*row.levels[:index], after, *row.levels[index + 1 :]))


def fold_offer(tx: Transaction, message: Message, offer: Offer) -> None:
    """Check the offer against the manifest's schedule and the announced oracles; the first offer of a round counts."""
    run, round_ = tx.need("run", Run), tx.get(f"round/{offer.announcement}", Round)
    if round_ is None:
        raise Orphan(offer.announcement)
    key = f"payee/{round_.id}"
    if message.author != run.coordinator or offer.payee != tx.me.pubkey:
        raise RemoteProtocolError("offer", "not by the coordinator to us", whose=message.author[:8])
    if tx.get(key, Payee) is not None:
        return
    bound = oracles_of(round_, tx.me.pubkey, offer.oracles)
    known = {item.digest for items in round_.oracles.values() for item in items.values() if item.payee == tx.me.pubkey}
    missing = [digest for digest in offer.oracles if digest not in known]
    if missing:
        raise Orphan(missing[0])
    wanted = run.manifest.settlement.instances
    whole = all(len(set(level)) == len(level) == wanted for level in offer.instances)
    if offer.amounts_msat != amounts(run) or len(offer.instances) != len(offer.amounts_msat) or not whole:
        raise RemoteProtocolError("offer", "does not follow the manifest's schedule", whose=message.author[:8])
    if len(bound) != len(offer.oracles) or len(bound) < run.manifest.threshold:
        raise RemoteProtocolError(
            "offer", f"is bound to {len(bound)} different oracles by {len(offer.oracles)} announcements", whose=message.author[:8]
        )
    tx.put(
        key,
        Payee(
            announcement=round_.id,
            payee=tx.me.pubkey,
            offer_id=message.id,
            instances=offer.instances,
            amounts_msat=offer.amounts_msat,
            oracles=offer.oracles,
        ),
    )


def fold_openings(tx: Transaction, message: Message, body: Openings) -> None:
    """The payer's answer to our choice: recompute everything before any work is risked on it."""
    run, key = tx.need("run", Run), f"payee/{body.announcement}"
    row = tx.get(key, Payee)
    if row is None or not row.chosen:
        raise Orphan(body.offer)
    if message.author != run.coordinator or body.offer != row.offer_id:
        raise RemoteProtocolError("openings", "of an offer that we did not answer", whose=message.author[:8])
    if row.levels or row.refused is not None:
        return
    if len(body.locks) != len(row.instances) or len(body.seeds) != len(row.instances):
        raise RemoteProtocolError("openings", "not one for each level", whose=message.author[:8])
    round_ = tx.need(f"round/{body.announcement}", Round)
    tx.put(key, msgspec.structs.replace(row, levels=tuple(PayeeLevel(Y.OFFERED, lock=lock) for lock in body.locks)))
    tx.emit(
        CheckLocks(
            owner=key,
            name="check",
            terms=terms(tx, run, round_, tx.me.pubkey, bound_oracles(round_, row)),
            instances=row.instances,
            chosen=row.chosen,
            seeds=body.seeds,
            locks=body.locks,
        )
    )


def hold_changed(tx: Transaction, payment_hash: Digest, state: str, amount_msat: Msat, cltv_expiry: BlockHeight | None) -> None:
    """Our Lightning node tells of one of our hold invoices."""
    for key in tx.keys("payee/"):
        row = tx.need(key, Payee)
        for index, level in enumerate(row.levels):
            if level.lock is None or level.lock.payment_hash != payment_hash or level.state in ENDED:
                continue
            if state == "accepted" and level.state is Y.INVOICED and amount_msat >= row.amounts_msat[index]:
                tx.put(key, moved(row, index, Y.HELD, cltv_expiry=cltv_expiry))
            elif state == "cancelled":
                tx.put(key, moved(row, index, Y.CANCELLED))
            return


def done(tx: Transaction, key: str, name: str, outcome: Outcome) -> None:
    """Take an outcome of one of the escrow's effects."""
    row, run = tx.need(key, Payee), tx.need("run", Run)
    index = int(name.partition(":")[2] or 0)
    match outcome:
        case Drawn(data=data):
            count = run.manifest.settlement.instances
            chosen = tuple(int(data[start : start + 8], 16) % count for start in range(0, len(data), 8))
            row = msgspec.structs.replace(row, chosen=chosen)
            tx.put(key, row)
            assert row.offer_id is not None
            number = tx.need(f"round/{row.announcement}", Round).announcement.round
            body = Choice(run=run.id, announcement=row.announcement, round=number, offer=row.offer_id, chosen=chosen)
            tx.say(f"{key}/choice", body, recipient=run.coordinator)
        case Ok() if name == "check":
            for level in range(len(row.levels)):
                row = moved(row, level, Y.CHECKED)
            tx.put(key, row)
        case Failed(reason=reason) if name == "check":
            tx.note("fault", "offers_refused", f"the offer of {run.coordinator[:8]} is refused as fraud: {reason}")
            tx.put(key, msgspec.structs.replace(row, refused=reason))
            for level in range(len(row.levels)):
                cancel(tx, key, level)
        case Invoiced(bolt11=bolt11):
            if row.levels[index].state is Y.CHECKED:
                tx.put(key, moved(row, index, Y.CHECKED, bolt11=bolt11))
        case Unlocked(preimage=preimage):
            tx.put(key, moved(row, index, Y.SETTLING, preimage=preimage))
        case Ok() if name.startswith("settle:"):
            tx.put(key, moved(row, index, Y.SETTLED))
            tx.note("info", "levels_settled", f"level {index + 1} settled: {row.amounts_msat[index]} msat")
        case Failed(reason=reason) if name.startswith(("unlock:", "settle:", "invoice:")):
            tx.note("fault", "levels_lost", f"level {index + 1}, {name.partition(':')[0]}: {reason}")
            cancel(tx, key, index)
        case Ok() | Failed() if name.startswith("cancel:"):
            pass
        case _:
            raise IllegalTransition(f"{key}: {name} ended with {type(outcome).__name__}")
