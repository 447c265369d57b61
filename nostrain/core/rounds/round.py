"""The fold of one round: who said what, first word of each author, each checked against what it refers to."""

from __future__ import annotations

import msgspec

from nostrain.core.rounds.named import check_room
from nostrain.core.rounds.result import fold_confirmation, fold_result
from nostrain.core.rounds.scoring import pinned
from nostrain.core.rounds.speakers import MAX_ALTERNATIVES, first, need_receipt, validator, worker
from nostrain.core.rounds.thermometers import fold_attestation, fold_epoch_attestation, fold_oracles, repeats_itself
from nostrain.core.rows import Round, Run
from nostrain.core.run import discredit, halt, need_run, with_item
from nostrain.core.tables import RoundPhase
from nostrain.core.transaction import Transaction
from nostrain.core.waiting import Orphan, receipt_key, word_key
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.digests import chain_reaches, commitment_digest, receipt_time, verdict_digest
from nostrain.protocol.messages import (
    Acknowledgement,
    Attestation,
    Commitment,
    Confirmation,
    EpochAttestation,
    Message,
    OracleAnnouncements,
    Receipt,
    Result,
    Reveal,
    Verdict,
    VerdictHash,
)

RoundBody = (
    OracleAnnouncements
    | Commitment
    | Receipt
    | Acknowledgement
    | Reveal
    | VerdictHash
    | Verdict
    | Attestation
    | EpochAttestation
    | Result
    | Confirmation
)


def phase(round_: Round, run: Run) -> RoundPhase:
    """Where the round stands, from what has been said in it."""
    if round_.result is not None:
        return RoundPhase.AGGREGATED if round_.result[1].accepted else RoundPhase.ABORTED
    if round_.receipt is None:
        return RoundPhase.OPEN
    if len(round_.acknowledgements) < run.manifest.threshold:
        return RoundPhase.RECEIPTED
    if set(pinned(round_)) - set(round_.reveals):
        return RoundPhase.REVEALING
    if len(round_.verdicts) < run.manifest.threshold:
        return RoundPhase.VALIDATING
    return RoundPhase.ATTESTING


def fold_round(tx: Transaction, message: Message, body: RoundBody) -> None:
    """Take one message into its round. Raises Orphan or RemoteProtocolError, and then has changed nothing."""
    run = need_run(tx, body.run)
    round_ = tx.get(f"round/{body.announcement}", Round)
    if round_ is None:
        if body.round <= run.round:
            return  # not kept any more; or a confirmation of the manifest, which observers read and no machine needs
        raise Orphan(body.announcement)
    if body.round != round_.announcement.round:
        raise RemoteProtocolError("message", f"says round {body.round} of an announcement of round {round_.announcement.round}")
    match body:
        case OracleAnnouncements():
            after = fold_oracles(tx, run, round_, message, body)
        case Commitment():
            after = fold_commitment(tx, run, round_, message, body)
        case Receipt():
            after = fold_receipt(tx, run, round_, message, body)
        case Acknowledgement():
            after = fold_acknowledgement(round_, message, body)
        case Reveal():
            after = fold_reveal(run, round_, message, body)
        case VerdictHash():
            after = fold_hash(round_, message, body)
        case Verdict():
            after = fold_verdict(round_, message, body)
        case Attestation():
            after = fold_attestation(tx, run, round_, message, body)
        case EpochAttestation():
            after = fold_epoch_attestation(run, round_, message, body)
        case Confirmation():
            after = fold_confirmation(run, round_, message, body)
        case Result():
            fold_result(tx, run, round_, message, body)
            return
    tx.put(f"round/{round_.id}", after)
    if isinstance(body, OracleAnnouncements) and repeats_itself(tx, after, message.author):
        discredit(tx, message.author, "it announced one event twice, or a nonce twice")
    attested = [author for author, _ in after.attestations.values()], [author for author, _ in after.epoch_attestations.values()]
    if isinstance(body, Attestation | EpochAttestation) and any(authors.count(message.author) > 1 for authors in attested):
        discredit(tx, message.author, "it attested twice")


def fold_commitment(tx: Transaction, run: Run, round_: Round, message: Message, body: Commitment) -> Round:
    """A commitment in time and on the announced state; in a delayed run, and only there, it says what it was trained from too."""
    worker(round_, message)
    if message.created_at > round_.announcement.deadlines.commit_by:
        raise RemoteProtocolError("commitment", "after the deadline", whose=message.author[:8])
    if body.state_id != round_.announcement.state_id:
        raise RemoteProtocolError("commitment", f"trained from state {body.state_id[:8]}, not the announced one", whose=message.author[:8])
    if (body.trained_from or None) != round_.base:
        told = f"trained from {body.trained_from or 'no other state'}, this round trains from {round_.base or 'the announced one'}"
        raise RemoteProtocolError("commitment", told, whose=message.author[:8])
    if message.id not in round_.commitments:
        mine = sum(author == message.author for author, _, _ in round_.commitments.values())
        check_room(tx, run, round_, message, mine, MAX_ALTERNATIVES)
    said = with_item(round_.commitments, message.id, (message.author, message.created_at, body))
    return msgspec.structs.replace(round_, commitments=said)


def fold_receipt(tx: Transaction, run: Run, round_: Round, message: Message, body: Receipt) -> Round:
    """The canonical receipt: sorted, no free field, `created_at` as `receipt_time` says; two of them halt the run."""
    if message.author != run.coordinator:
        raise RemoteProtocolError("receipt", "not by the coordinator", whose=message.author[:8])
    if round_.receipt is not None:
        if round_.receipt[0] != message.id:
            halt(tx, run, f"the coordinator gave two receipts for round {body.round}")
        return round_
    missing = [event_id for event_id in body.commitments if event_id not in round_.commitments]
    if missing:
        raise Orphan(missing[0])
    pins = [round_.commitments[event_id] for event_id in body.commitments]
    complete = len(body.commitments) == len(round_.announcement.workers)
    expected = receipt_time(round_.announcement.deadlines.commit_by, complete, [created_at for _, created_at, _ in pins])
    distinct = len({author for author, _, _ in pins}) == len(pins)
    if list(body.commitments) != sorted(set(body.commitments)) or not pins or not distinct or message.created_at != expected:
        raise RemoteProtocolError("receipt", "not canonical", whose=message.author[:8])
    return msgspec.structs.replace(round_, receipt=(message.id, body))


def fold_acknowledgement(round_: Round, message: Message, body: Acknowledgement) -> Round:
    """A validator's acknowledgement with the right link of its chain."""
    entry = validator(round_, message)
    need_receipt(round_, body.receipt)
    said_before = round_.acknowledgements.get(message.author)
    if said_before is None and (body.round > entry.chain_length or not chain_reaches(body.link, body.round, entry.chain_end)):
        raise RemoteProtocolError(
            "acknowledgement", f"link {body.link[:8]} is not number {body.round} of its chain", whose=message.author[:8]
        )
    acknowledgements = first(round_.acknowledgements, message, body, said_before)
    return msgspec.structs.replace(round_, acknowledgements=acknowledgements)


def fold_reveal(run: Run, round_: Round, message: Message, body: Reveal) -> Round:
    """A reveal that opens its author's pinned commitment; the commitment binds one blob, so everyone keeps the same one, whatever its URLs."""
    worker(round_, message)
    if round_.receipt is None:
        raise Orphan(receipt_key(round_.id))
    commitment = round_.commitments.get(body.commitment)
    if commitment is None or commitment[0] != message.author or body.commitment not in round_.receipt[1].commitments:
        raise RemoteProtocolError("reveal", "of a commitment that is not its author's, or not pinned", whose=message.author[:8])
    if not 1 <= body.blob.size <= run.manifest.max_delta_bytes:
        raise RemoteProtocolError(
            "reveal", f"promises {body.blob.size} bytes, {run.manifest.max_delta_bytes} is the limit", whose=message.author[:8]
        )
    if commitment_digest(message.author, round_.id, body.salt, body.blob) != commitment[2].commitment:
        raise RemoteProtocolError("reveal", f"blob {body.blob.sha256[:8]} is not what was committed to", whose=message.author[:8])
    if message.author in round_.reveals:
        return round_
    return msgspec.structs.replace(round_, reveals=with_item(round_.reveals, message.author, body))


def fold_hash(round_: Round, message: Message, body: VerdictHash) -> Round:
    """The hash of a verdict, in time, by a validator that acknowledged the receipt: only then is its seed known."""
    validator(round_, message)
    need_receipt(round_, body.receipt)
    if message.author not in round_.acknowledgements:
        raise Orphan(word_key(round_.id, Acknowledgement, message.author))
    if message.created_at > round_.announcement.deadlines.hash_by:
        raise RemoteProtocolError("verdict hash", "after the deadline", whose=message.author[:8])
    return msgspec.structs.replace(round_, hashes=first(round_.hashes, message, body, round_.hashes.get(message.author)))


def fold_verdict(round_: Round, message: Message, body: Verdict) -> Round:
    """A verdict that opens its author's hash and covers exactly the pinned workers."""
    validator(round_, message)
    need_receipt(round_, body.receipt)
    announced = round_.hashes.get(message.author)
    if announced is None:
        raise Orphan(word_key(round_.id, VerdictHash, message.author))
    if message.created_at > round_.announcement.deadlines.verdict_by:
        raise RemoteProtocolError("verdict", "after the deadline", whose=message.author[:8])
    if announced.digest != verdict_digest(message.author, body):
        raise RemoteProtocolError("verdict", "is not the one whose hash was published", whose=message.author[:8])
    if tuple(score.worker for score in body.scores) != pinned(round_) or body.state_id != round_.announcement.state_id:
        raise RemoteProtocolError("verdict", "does not score exactly the pinned workers on the announced state", whose=message.author[:8])
    known = round_.verdicts.get(message.author)
    if known is not None and known[0] <= message.id:  # attestations name verdicts by id: of two events with one verdict, all keep the same
        return round_
    return msgspec.structs.replace(round_, verdicts=with_item(round_.verdicts, message.author, (message.id, body)))
