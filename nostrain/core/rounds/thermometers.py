"""The fold of what oracles say in a round: the thermometers that they announce, and the levels that they attest on them."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Final

import msgspec

from nostrain.core.rounds.epoch import opens, together
from nostrain.core.rounds.named import check_room, relied_on
from nostrain.core.rounds.scoring import pinned
from nostrain.core.rounds.speakers import MAX_ALTERNATIVES, need_receipt, validator
from nostrain.core.rows import Round, Run
from nostrain.core.run import with_item
from nostrain.core.timing import epoch_ends
from nostrain.core.transaction import Transaction
from nostrain.core.waiting import Orphan, word_key
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.digests import epoch_event_id, oracle_event_id
from nostrain.protocol.messages import (
    Attestation,
    AttestationItem,
    EpochAttestation,
    Message,
    OracleAnnouncements,
    OracleItem,
    ValidatorEntry,
)
from nostrain.units import Digest, EventId, Pubkey

MAX_ATTESTATIONS: Final = 4
"""Attestation events of one validator that are kept, which are large; and as many again if they are cited."""


def fold_oracles(tx: Transaction, run: Run, round_: Round, message: Message, body: OracleAnnouncements) -> Round:
    """Thermometers of one validator; several events may carry them.

    One that announces an event twice contradicts itself: both are kept, since an offer may be bound to either. Of more than anyone keeps, those
    are left out that nobody relies on.
    """
    entry = validator(round_, message)
    known = dict(round_.oracles.get(message.author, {}))
    named: Container[Digest | tuple[str, ...]] | None = None
    left_out = False
    for item in body.items:
        problem = thermometer_problem(run, round_, entry, item)
        if problem is not None:
            raise RemoteProtocolError("oracle announcement", problem, whose=message.author[:8])
        kept = sum(other.event_id == item.event_id for other in known.values())
        if kept >= MAX_ALTERNATIVES and item.digest not in known:
            named = relied_on(tx, run, round_) if named is None else named
            if kept >= 2 * MAX_ALTERNATIVES or (item.digest not in named and item.nonces not in named):
                left_out = True
                continue
        known[item.digest] = item
    if left_out and len(known) == len(round_.oracles.get(message.author, {})):
        raise RemoteProtocolError("oracle announcement", "announces one event too often", whose=message.author[:8])
    return msgspec.structs.replace(round_, oracles=with_item(round_.oracles, message.author, known))


def repeats_itself(tx: Transaction, round_: Round, author: Pubkey) -> bool:
    """Whether a validator announced one event in two ways, or one nonce for two events: then it can be made to sign anything."""
    nonces: dict[str, Digest] = {}
    for key in tx.keys("round/"):
        row = tx.need(key, Round)
        for item in row.oracles.get(author, {}).values():
            if any(nonces.setdefault(nonce, item.digest) != item.digest for nonce in item.nonces):
                return True
    items = list(round_.oracles.get(author, {}).values())
    return len({item.event_id for item in items}) != len(items)


def thermometer_problem(run: Run, round_: Round, entry: ValidatorEntry, item: OracleItem) -> str | None:
    """Why an oracle announcement is none of this round's, or None."""
    if item.oracle != entry.oracle:
        return "by another key than the validator's oracle"
    maturities = {oracle_event_id(round_.id, item.payee): round_.announcement.deadlines.attest_by}
    if together(run.manifest) and opens(run, round_):
        maturities[epoch_event_id(round_.id, item.payee)] = epoch_ends(run, round_)
    if item.payee not in round_.announcement.workers or item.event_id not in maturities:
        return f"for event {item.event_id[:40]!r}, which is none of this round"
    if len(set(item.nonces)) != len(item.nonces) or len(item.nonces) != len(run.manifest.scoring.levels_ppm):
        return f"with {len(set(item.nonces))} nonces for {len(run.manifest.scoring.levels_ppm)} levels"
    if item.maturity != maturities[item.event_id]:
        return "of another maturity than the end of the round, or of its epoch"
    return None


def check_items(round_: Round, message: Message, items: Sequence[AttestationItem], event_id: Callable[[EventId, Pubkey], str]) -> None:
    """Attestations that answer the validator's own announcements of those events, digit by digit, with prefix outcomes."""
    entry, whose = validator(round_, message), message.author[:8]
    promised = {(item.payee, item.event_id, item.nonces) for item in round_.oracles.get(message.author, {}).values()}
    for item in items:
        if item.oracle != entry.oracle or list(item.digits) != sorted(item.digits, reverse=True):
            raise RemoteProtocolError("attestation", f"for {item.payee[:8]} by another key, or no thermometer", whose=whose)
        if item.event_id != event_id(round_.id, item.payee):
            raise RemoteProtocolError("attestation", f"of another event, {item.event_id[:40]!r}", whose=whose)
        if (item.payee, item.event_id, item.nonces) not in promised:
            raise Orphan(word_key(round_.id, OracleAnnouncements, message.author))


def fold_attestation(tx: Transaction, run: Run, round_: Round, message: Message, body: Attestation) -> Round:
    """The levels of one round: exactly those of the pinned workers."""
    whose = message.author[:8]
    validator(round_, message)
    need_receipt(round_, body.receipt)
    check_items(round_, message, body.items, oracle_event_id)
    if tuple(item.payee for item in body.items) != pinned(round_):
        raise RemoteProtocolError("attestation", "does not cover exactly the pinned workers", whose=whose)
    if message.id not in round_.attestations:
        mine = sum(author == message.author for author, _ in round_.attestations.values())
        check_room(tx, run, round_, message, mine, MAX_ATTESTATIONS)
    return msgspec.structs.replace(round_, attestations=with_item(round_.attestations, message.id, (message.author, body)))


def fold_epoch_attestation(run: Run, round_: Round, message: Message, body: EpochAttestation) -> Round:
    """The levels of an epoch, in the round that opened it: one for each worker that it lists."""
    whose = message.author[:8]
    validator(round_, message)
    if not together(run.manifest) or not opens(run, round_):
        raise RemoteProtocolError("epoch attestation", "for a round that opens no epoch of several rounds", whose=whose)
    check_items(round_, message, body.items, epoch_event_id)
    if tuple(item.payee for item in body.items) != round_.announcement.workers:
        raise RemoteProtocolError("epoch attestation", "does not cover exactly the epoch's workers", whose=whose)
    mine = sum(author == message.author for author, _ in round_.epoch_attestations.values())
    if message.id not in round_.epoch_attestations and mine >= MAX_ATTESTATIONS:
        raise RemoteProtocolError("epoch attestation", f"more than {MAX_ATTESTATIONS} in one epoch", whose=whose)
    return msgspec.structs.replace(round_, epoch_attestations=with_item(round_.epoch_attestations, message.id, (message.author, body)))
