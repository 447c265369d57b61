"""What a payee makes of the payer's private messages: an offer that follows the manifest, openings that stand up to the cut-and-choose."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nostrain.core.effects import CheckLocks
from nostrain.core.escrow.payee import bound_oracles, refuse
from nostrain.core.escrow.rows import Payee, PayeeLevel
from nostrain.core.escrow.terms import amounts, oracles_of, terms
from nostrain.core.rows import Round, Run
from nostrain.core.run import need_run
from nostrain.core.tables import PayeeState
from nostrain.core.transaction import Transaction
from nostrain.core.waiting import Orphan
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.messages import Message, Offer, Openings
from nostrain.units import Digest


def fold_offer(tx: Transaction, message: Message, offer: Offer) -> None:
    """Check the offer against the manifest's schedule and the announced oracles; the first offer of a round counts."""
    run = need_run(tx, offer.run)
    if message.author != run.coordinator or offer.payee != tx.me.pubkey:
        raise RemoteProtocolError("offer", "not by the coordinator to us", whose=message.author[:8])
    round_ = tx.get(f"round/{offer.announcement}", Round)
    if round_ is None and offer.round > run.round:
        raise Orphan(offer.announcement)
    if round_ is None or tx.get(f"payee/{round_.id}", Payee) is not None:
        return
    if run.manifest.settlement.mode != "hold" or tx.now > round_.announcement.deadlines.commit_by or round_.result is not None:
        return
    known = {item.digest for items in round_.oracles.values() for item in items.values() if item.payee == tx.me.pubkey}
    missing = [digest for digest in offer.oracles if digest not in known]
    if missing:
        raise Orphan(missing[0])
    bound = oracles_of(run, round_, tx.me.pubkey, offer.oracles)
    check_offer(run, message, offer, bound)
    trusted = [index for index, _ in bound if round_.announcement.validators[index - 1].pubkey not in run.faulty]
    if len(trusted) < run.manifest.threshold:
        raise RemoteProtocolError("offer", f"is bound to {len(trusted)} oracles that did not cheat", whose=message.author[:8])
    row = Payee(
        announcement=round_.id,
        payee=tx.me.pubkey,
        offer_id=message.id,
        instances=offer.instances,
        amounts_msat=offer.amounts_msat,
        oracles=offer.oracles,
    )
    tx.put(f"payee/{round_.id}", row)


def check_offer(run: Run, message: Message, offer: Offer, bound: Sequence[object]) -> None:
    """Raises RemoteProtocolError when the offer is not what the manifest promises."""
    wanted = run.manifest.settlement.instances
    whole = all(len(set(level)) == len(level) == wanted for level in offer.instances)
    if offer.amounts_msat != amounts(run) or len(offer.instances) != len(offer.amounts_msat) or not whole:
        raise RemoteProtocolError("offer", "does not follow the manifest's schedule", whose=message.author[:8])
    if len(bound) != len(offer.oracles) or len(bound) < run.manifest.threshold:
        reason = f"is bound to {len(bound)} different oracles by {len(offer.oracles)} announcements"
        raise RemoteProtocolError("offer", reason, whose=message.author[:8])


def fold_openings(tx: Transaction, message: Message, body: Openings) -> None:
    """The payer's answer to our choice: recompute everything before any work is risked on it."""
    run, key = need_run(tx, body.run), f"payee/{body.announcement}"
    row = tx.get(key, Payee)
    if message.author != run.coordinator or row is None or not row.chosen or body.offer != row.offer_id:
        raise RemoteProtocolError("openings", "of an offer that we did not answer", whose=message.author[:8])
    if row.levels or row.refused is not None:
        return
    if len(body.locks) != len(row.instances) or len(body.seeds) != len(row.instances):
        raise RemoteProtocolError("openings", "not one for each level", whose=message.author[:8])
    round_ = tx.need(f"round/{body.announcement}", Round)
    row = msgspec.structs.replace(row, levels=tuple(PayeeLevel(PayeeState.OFFERED, lock=lock) for lock in body.locks))
    tx.put(key, row)
    hashes = [lock.payment_hash for lock in body.locks]
    if len(set(hashes)) != len(hashes) or set(hashes) & known_hashes(tx, key):
        refuse(tx, run, key, "it names a payment hash twice, or one of another round")
        return
    bound = terms(tx, run, round_, tx.me.pubkey, bound_oracles(run, round_, row))
    check = CheckLocks(owner=key, name="check", terms=bound, instances=row.instances, chosen=row.chosen, seeds=body.seeds, locks=body.locks)
    tx.emit(check)


def known_hashes(tx: Transaction, but: str) -> set[Digest]:
    """Payment hashes of our other escrows: an invoice on one of them would be theirs."""
    rows = [tx.need(key, Payee) for key in tx.keys("payee/") if key != but]
    return {level.lock.payment_hash for row in rows for level in row.levels if level.lock is not None}
