"""The payee of an escrow: chooses what to have opened, checks it, makes the hold invoices, and settles what t validators attested.

Before its levels are HELD it commits to nothing. It settles with an attested preimage only, never within 24 blocks of an HTLC's expiry, and
cancels what can no longer be released: nothing is held for longer than the round needs.
"""

from __future__ import annotations

from typing import Final

import msgspec

from nostrain.core.effects import Cancel, Draw, Drawn, Failed, HoldInvoice, Invoiced, Ok, Outcome, Settle, Unlock, Unlocked
from nostrain.core.escrow.rows import Payee, PayeeLevel
from nostrain.core.escrow.terms import oracles_of, terms
from nostrain.core.rounds.epoch import anchor_of, together
from nostrain.core.rounds.scoring import pinned
from nostrain.core.rows import Chain, Round, Run
from nostrain.core.tables import PayeeState, advance
from nostrain.core.timing import SAFETY_BLOCKS, acknowledged_by, blocks_in, collect_by, epoch_ends, release_by, settled_by
from nostrain.core.transaction import Transaction
from nostrain.errors import IllegalTransition
from nostrain.protocol.messages import AttestationItem, Choice, Invoices, OracleItem
from nostrain.units import BlockHeight, Digest, Msat

Y = PayeeState
ENDED = (Y.SETTLED, Y.CANCELLED)
UNPAID = (Y.OFFERED, Y.CHECKED, Y.INVOICED)
INVOICE_EXPIRY_S: Final = 3600


def locked(tx: Transaction, run: Run, round_: Round) -> bool:
    """Whether the money for our work is held, and long enough: then, and only then, we commit. True in a run that is not paid.

    A later round of an epoch has to be attested before the epoch's end: it would be used, and not be counted.
    """
    if run.manifest.settlement.mode == "none":
        return True
    anchor, chain = anchor_of(tx, run.manifest, round_.announcement.round), tx.get("height", Chain)
    row = tx.get(f"payee/{anchor.id}", Payee) if anchor is not None else None
    if anchor is None or row is None or chain is None or not row.levels:
        return False
    if (tx.now if anchor.id == round_.id else collect_by(run, round_)) > epoch_ends(run, anchor):
        return False
    end = chain.height + blocks_in(settled_by(run, anchor) - tx.now) + SAFETY_BLOCKS
    return all(level.state is Y.HELD and level.cltv_expiry is not None and level.cltv_expiry >= end for level in row.levels)


def decide(tx: Transaction) -> None:
    """Emit what each escrow of ours calls for."""
    run = tx.run
    if run is None:
        return
    for key in tx.keys("payee/"):
        row = tx.need(key, Payee)
        if row.levels and all(level.state in ENDED for level in row.levels):
            continue
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
    bolt11 = tuple(level.bolt11 for level in row.levels if level.state is Y.CHECKED and level.bolt11 is not None)
    if len(bolt11) == len(row.levels) and row.offer_id is not None:
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
    if expiring(tx, level):
        cancel(tx, key, index)
        return
    signed = attestations(run, round_, row, index + 1)
    if level.state is Y.HELD and len(signed) >= run.manifest.threshold:
        row = moved(row, index, Y.RELEASABLE)
        tx.put(key, row)
        level = row.levels[index]
    if level.state is Y.SETTLING:
        assert level.preimage is not None
        if tx.get("height", Chain) is None:
            tx.withdraw(key, f"settle:{index}")
            return
        tx.emit(Settle(owner=key, name=f"settle:{index}", preimage=level.preimage))
    elif tx.outstanding(f"{key}#unlock:{index}") is not None:
        return
    elif level.state is Y.RELEASABLE and len(signed) > level.tried:
        assert level.lock is not None
        tx.put(key, moved(row, index, Y.RELEASABLE, tried=len(signed)))
        bound = terms(tx, run, round_, tx.me.pubkey, bound_oracles(run, round_, row))
        scalars = tuple((oracle, item.scalars[: index + 1]) for oracle, item in signed)
        tx.emit(Unlock(owner=key, name=f"unlock:{index}", terms=bound, level=index + 1, lock=level.lock, scalars=scalars))
    elif hopeless(tx, run, round_, level):
        cancel(tx, key, index)


def expiring(tx: Transaction, level: PayeeLevel) -> bool:
    """Whether the HTLC is so close to its expiry that it must not be settled any more."""
    chain = tx.get("height", Chain)
    return chain is not None and level.cltv_expiry is not None and chain.height + SAFETY_BLOCKS >= level.cltv_expiry


def hopeless(tx: Transaction, run: Run, round_: Round, level: PayeeLevel) -> bool:
    """Whether no attestation that could release the level is still to come, or the money was not there in time."""
    if level.state in UNPAID:
        return tx.now > round_.announcement.deadlines.commit_by or round_.result is not None
    if tx.now > release_by(tx, run, round_):
        return True
    if together(run.manifest):
        entries = {entry.pubkey for entry in round_.announcement.validators}
        return entries <= {author for author, _ in round_.epoch_attestations.values()}
    if round_.receipt is not None and tx.me.pubkey not in pinned(round_):
        return True
    # Whose acknowledgement is still on its way may attest yet; after a while only those count who did acknowledge.
    listed = {entry.pubkey for entry in round_.announcement.validators}
    expected = set(round_.acknowledgements) if tx.now > acknowledged_by(round_) else listed
    return round_.result is not None and bool(expected) and expected <= round_.attested


def cancel(tx: Transaction, key: str, index: int) -> None:
    """Give the level's money back, if our invoice was sent. One that is being settled is cancelled only if our node says that it was not.

    Before, the hash is just what the payer named: it may be that of another invoice of ours.
    """
    row = tx.need(key, Payee)
    level = row.levels[index]
    for name in ("unlock", "invoice", "settle"):
        tx.withdraw(key, f"{name}:{index}")
    if level.lock is not None and level.state not in (Y.OFFERED, Y.CHECKED):
        tx.emit(Cancel(owner=key, name=f"cancel:{index}", payment_hash=level.lock.payment_hash))
    if level.state is not Y.SETTLING:
        tx.put(key, moved(row, index, Y.CANCELLED))


def attestations(run: Run, round_: Round, row: Payee, level: int) -> tuple[tuple[int, AttestationItem], ...]:
    """Attestations of the offer's oracles that open `level`, one of each, with the oracle's index."""
    bound = {(item.oracle, item.nonces): index for index, item in bound_oracles(run, round_, row)}
    found: dict[int, AttestationItem] = {}
    rounds = (item for _, attestation in round_.attestations.values() for item in attestation.items)
    epochs = (item for _, attestation in round_.epoch_attestations.values() for item in attestation.items)
    for item in (*rounds, *epochs):
        index = bound.get((item.oracle, item.nonces))
        if index is not None and item.payee == row.payee and sum(item.digits) >= level:
            found[index] = item
    return tuple(sorted(found.items()))


def bound_oracles(run: Run, round_: Round, row: Payee) -> tuple[tuple[int, OracleItem], ...]:
    """The oracles that the offer is bound to."""
    return oracles_of(run, round_, row.payee, row.oracles)


def moved(row: Payee, index: int, state: PayeeState, **fields: object) -> Payee:
    """The row with one level moved on, and `fields` of it set."""
    level = row.levels[index]
    after = msgspec.structs.replace(level, state=advance("payee", level.state, state), **fields)
    return msgspec.structs.replace(row, levels=(*row.levels[:index], after, *row.levels[index + 1 :]))


def refuse(tx: Transaction, run: Run, key: str, reason: str) -> None:
    """The offer does not stand up to the check: nothing of it is used, and no more tickets of this coordinator are bought."""
    row = tx.need(key, Payee)
    tx.put("run", msgspec.structs.replace(tx.need("run", Run), distrusted=reason))
    tx.note("fault", "offers_refused", f"the offer of {run.coordinator[:8]} is refused as fraud: {reason}")
    tx.put(key, msgspec.structs.replace(row, refused=reason))
    for level in range(len(row.levels)):
        cancel(tx, key, level)


def hold_changed(tx: Transaction, payment_hash: Digest, state: str, amount_msat: Msat, cltv_expiry: BlockHeight | None) -> None:
    """Our Lightning node tells of one of our hold invoices."""
    for key in tx.keys("payee/"):
        row = tx.need(key, Payee)
        for index, level in enumerate(row.levels):
            if level.lock is None or level.lock.payment_hash != payment_hash or level.state in (*ENDED, Y.OFFERED):
                continue
            if state == "accepted" and level.state is Y.INVOICED and amount_msat >= row.amounts_msat[index]:
                tx.put(key, moved(row, index, Y.HELD, cltv_expiry=cltv_expiry))
            elif state == "cancelled":
                tx.withdraw(key, f"unlock:{index}")
                tx.withdraw(key, f"settle:{index}")
                tx.put(key, moved(row, index, Y.CANCELLED))
            return


def done(tx: Transaction, key: str, name: str, outcome: Outcome) -> None:
    """Take an outcome of one of the escrow's effects."""
    row, run = tx.get(key, Payee), tx.run
    if row is None or run is None:
        return
    what, _, number = name.partition(":")
    match outcome:
        case Drawn(data=data):
            choose(tx, run, key, row, data)
        case Ok() if name == "check":
            for level in range(len(row.levels)):
                if row.levels[level].state is Y.OFFERED:
                    row = moved(row, level, Y.CHECKED)
            tx.put(key, row)
        case Failed(reason=reason) if name == "check":
            refuse(tx, run, key, reason)
        case Invoiced() | Unlocked() | Ok() | Failed() if number.isdigit():
            level_done(tx, key, row, what, int(number), outcome)
        case _:
            raise IllegalTransition(f"{key}: {name} ended with {type(outcome).__name__}")


def choose(tx: Transaction, run: Run, key: str, row: Payee, data: str) -> None:
    """Entropy decides which instance of each level is used; it is committed together with the choice."""
    count = run.manifest.settlement.instances
    chosen = tuple(int(data[start : start + 8], 16) % count for start in range(0, len(data), 8))
    tx.put(key, msgspec.structs.replace(row, chosen=chosen))
    assert row.offer_id is not None
    round_ = tx.need(f"round/{row.announcement}", Round)
    body = Choice(run=run.id, announcement=round_.id, round=round_.announcement.round, offer=row.offer_id, chosen=chosen)
    tx.say(f"{key}/choice", body, recipient=run.coordinator)


def level_done(tx: Transaction, key: str, row: Payee, what: str, index: int, outcome: Outcome) -> None:
    """An effect of one level ended."""
    level = row.levels[index]
    match what, outcome:
        case "invoice", Invoiced(bolt11=bolt11):
            if level.state is Y.CHECKED:
                tx.put(key, moved(row, index, Y.CHECKED, bolt11=bolt11))
        case "unlock", Unlocked(preimage=preimage):
            tx.put(key, moved(row, index, Y.SETTLING, preimage=preimage))
        case "unlock", Failed(reason=reason):
            # Another oracle's attestation may still open what these did not; only when none is left to come is the level lost.
            tx.note("fault", "unlocks_failed", f"level {index + 1} does not open with {level.tried} attestations: {reason}")
        case ("settle", Ok()) | ("cancel", Failed()) if level.state is Y.SETTLING:
            lock, round_ = level.lock, tx.need(f"round/{row.announcement}", Round)
            assert lock is not None  # what has no lock is not settled
            tx.book("settled", round_, row.amounts_msat[index], lock.payment_hash, tx.need("run", Run).coordinator)
            tx.put(key, moved(row, index, Y.SETTLED))
            tx.note("info", "levels_settled", f"level {index + 1} settled: {row.amounts_msat[index]} msat")
        case "cancel", Ok() if level.state is Y.SETTLING:
            tx.put(key, moved(row, index, Y.CANCELLED))
            tx.note("fault", "levels_lost", f"level {index + 1} could not be settled before its expiry")
        case "cancel", Ok() | Failed():
            pass
        case (("settle" | "invoice"), Failed(reason=reason)):
            tx.note("fault", "levels_lost", f"level {index + 1}, {what}: {reason}")
            tx.put(key, moved(row, index, Y.CANCELLED))
        case _:
            raise IllegalTransition(f"{key}: {what}:{index} ended with {type(outcome).__name__}")
