"""What a validator decides: announce the thermometers, acknowledge the receipt, score what was revealed, publish hash then verdict, attest."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from nostrain.core import evaluation
from nostrain.core.cache import used
from nostrain.core.effects import (
    ChainLink,
    Computed,
    Draw,
    Drawn,
    Failed,
    Fetched,
    LinkRead,
    OracleAnnounce,
    OracleAnnounced,
    OracleAttest,
    OracleAttested,
    Outcome,
)
from nostrain.core.rounds.epoch import rounds_of
from nostrain.core.rounds.scoring import pinned, provenance_refusals, standings, thermometer
from nostrain.core.rows import Duty, Replica, Round, Run
from nostrain.core.run import with_item
from nostrain.core.tables import DutyState, advance
from nostrain.core.transaction import Transaction
from nostrain.errors import IllegalTransition
from nostrain.protocol.digests import oracle_event_id, verdict_digest
from nostrain.protocol.jobs import EvaluateResult
from nostrain.protocol.limits import MAX_ORACLE_ITEMS
from nostrain.protocol.messages import Acknowledgement, Attestation, OracleAnnouncements, OracleItem, VerdictHash
from nostrain.units import Digest, EventId, Pubkey

D = DutyState
ENDED = (D.ATTESTED, D.SILENT)
NEVER_CAME_BACK = "our oracle announcements never came back from the relays"
ITEMS_PER_EVENT = min(16, MAX_ORACLE_ITEMS)
"""Keeps an event of oracle announcements well below MAX_EVENT_BYTES."""


def decide(tx: Transaction) -> None:
    """Take up the open round if it lists us; take every duty that has not ended one step further.

    In a run that was halted only those go on for which workers may have shown their deltas (`step`).
    """
    run = tx.run
    if run is None or "validator" not in tx.me.roles:
        return
    round_ = tx.get(f"round/{run.open}", Round) if not run.halted else None
    if round_ is not None and tx.get(f"duty/{round_.id}", Duty) is None and may_begin(tx, round_):
        tx.put(f"duty/{round_.id}", Duty(announcement=round_.id))
    for key in tx.keys("duty/"):
        duty = tx.need(key, Duty)
        if duty.state not in ENDED and (not run.halted or duty.state not in (D.ANNOUNCING, D.ANNOUNCED)):
            step(tx, run, tx.need(f"round/{duty.announcement}", Round), duty)


def may_begin(tx: Transaction, round_: Round) -> bool:
    """Whether the round lists us and its commitments are not yet due."""
    listed = any(entry.pubkey == tx.me.pubkey for entry in round_.announcement.validators)
    return listed and tx.now <= round_.announcement.deadlines.commit_by


def step(tx: Transaction, run: Run, round_: Round, duty: Duty) -> None:
    """Emit what the duty's state calls for; fall silent when its time is over.

    A result does not end the duty once workers may have shown their deltas on the strength of our acknowledgement: a coordinator that
    closes a round early would have the work for nothing.
    """
    limits, key = round_.announcement.deadlines, f"duty/{round_.id}"
    closed = round_.result is not None and (bool(round_.result[1].accepted) or duty.state in (D.ANNOUNCING, D.ANNOUNCED))
    overdue = late(tx, round_, duty)
    if closed:
        silent(tx, duty, "the round closed first")
    elif overdue is not None:
        silent(tx, duty, overdue)
    elif duty.state is D.ANNOUNCING:
        announce(tx, run, round_)
    elif duty.state is D.ANNOUNCED and round_.receipt is not None:
        acknowledge(tx, run, round_, duty)
    elif duty.state is D.ACKNOWLEDGED:
        if evaluation.prepare(tx, run, round_, duty):
            hashed(tx, run, round_, tx.need(key, Duty), None)
    elif duty.state is D.HASHED:
        if everyone(run, set(round_.acknowledgements), set(round_.hashes)) or tx.now > limits.hash_by:
            assert duty.verdict is not None
            tx.say(f"{round_.id}/verdict", duty.verdict)
            save(tx, msgspec.structs.replace(duty, heard=tuple(sorted(round_.hashes))), D.OPENED)
    elif duty.state is D.OPENED and (everyone(run, set(duty.heard), set(round_.verdicts)) or tx.now > limits.verdict_by):
        attest(tx, run, round_, duty)


def everyone(run: Run, expected: set[Pubkey], heard: set[Pubkey]) -> bool:
    """Whether all who are expected have spoken, and they are enough: those whose word is still on its way are not known to be expected."""
    return len(expected) >= run.manifest.threshold and expected <= heard


def late(tx: Transaction, round_: Round, duty: Duty) -> str | None:
    """Why it is too late for what the duty's state calls for; None while there is time."""
    limits = round_.announcement.deadlines
    match duty.state:
        case D.ANNOUNCING if tx.now > limits.commit_by:
            return "late: our oracle did not announce before the commitments were due"
        case D.ANNOUNCED if tx.now > limits.acknowledge_by:
            return "late: no receipt came in the time to acknowledge it"
        case D.ACKNOWLEDGED | D.EVALUATING if tx.now > limits.hash_by:
            return "late: the evaluation took longer than the round allows"
        case D.HASHED if tx.now > limits.verdict_by:
            return "late: the time to open the verdict is over"
        case D.OPENED if tx.now > limits.attest_by:
            return "late: the time to attest is over"
        case _:
            return None


def announce(tx: Transaction, run: Run, round_: Round) -> None:
    """One thermometer for each listed worker. Maturity is the end of the round."""
    tx.emit(
        OracleAnnounce(
            owner=f"duty/{round_.id}",
            name="announce",
            events=tuple((worker, oracle_event_id(round_.id, worker)) for worker in round_.announcement.workers),
            digits=len(run.manifest.scoring.levels_ppm),
            maturity=round_.announcement.deadlines.attest_by,
        )
    )


def publish_thermometers(tx: Transaction, run: Run, round_: Round, items: tuple[OracleItem, ...], key: str) -> None:
    """Publish the announcements, as many events as it takes."""
    fit = ITEMS_PER_EVENT
    for part, start in enumerate(range(0, len(items), fit)):
        body = OracleAnnouncements(run=run.id, announcement=round_.id, round=round_.announcement.round, items=items[start : start + fit])
        tx.say(f"{round_.id}/{key}/{part}", body)


def acknowledge(tx: Transaction, run: Run, round_: Round, duty: Duty) -> None:
    """Our chain's link for this round, then the acknowledgement that shows it. The verdict's salt is drawn meanwhile."""
    key = f"duty/{round_.id}"
    assert round_.receipt is not None
    if duty.salt is None:
        tx.emit(Draw(owner=key, name="salt", size=32))
    if duty.link is None:
        tx.emit(ChainLink(owner=key, name="link", run=run.id, chain_length=run.manifest.rounds, index=round_.announcement.round))
    if duty.salt is None or duty.link is None:
        return
    body = Acknowledgement(run=run.id, announcement=round_.id, round=round_.announcement.round, receipt=round_.receipt[0], link=duty.link)
    tx.say(f"{round_.id}/acknowledgement", body)
    save(tx, duty, D.ACKNOWLEDGED)


def attest(tx: Transaction, run: Run, round_: Round, duty: Duty) -> None:
    """The levels that follow from the verdicts that there are: the same set gives every validator the same levels."""
    used = {author: round_.verdicts[author] for author in duty.heard if author in round_.verdicts}
    if len(used) < run.manifest.threshold:
        silent(tx, duty, f"{len(used)} verdicts, {run.manifest.threshold} are needed")
        return
    workers = pinned(round_)
    spec = run.manifest.scoring
    history = provenance_refusals(rounds_of(tx, range(1, round_.announcement.round)), round_, spec)
    standing = standings([verdict for _, verdict in used.values()], workers, spec, history)
    levels = {worker: standing[worker].level for worker in workers}
    outcomes = outcomes_of(tx, round_, levels, oracle_event_id, len(spec.levels_ppm))
    if outcomes is None:
        silent(tx, duty, NEVER_CAME_BACK)
        return
    tx.emit(OracleAttest(owner=f"duty/{round_.id}", name="attest", outcomes=outcomes))
    duty = msgspec.structs.replace(duty, verdicts=tuple(sorted(event_id for event_id, _ in used.values())))
    save(tx, duty, D.ATTESTING)


def outcomes_of(
    tx: Transaction, round_: Round, levels: Mapping[Pubkey, int], event_id: Callable[[EventId, Pubkey], str], digits: int
) -> tuple[tuple[str, Pubkey, tuple[int, ...]], ...] | None:
    """What our oracle is to sign: each worker's level, on our announcement of its event; None if one of those never came back from the relays."""
    announced = round_.oracles.get(tx.me.pubkey, {}).values()
    own = {item.payee: item.tlv for item in announced if item.event_id == event_id(round_.id, item.payee)}
    if set(levels) - set(own):
        return None
    return tuple((own[worker], worker, thermometer(level, digits)) for worker, level in levels.items())


def silent(tx: Transaction, duty: Duty, reason: str) -> None:
    """Say nothing more in this round."""
    tx.withdraw(f"duty/{duty.announcement}")
    save(tx, msgspec.structs.replace(duty, reason=reason), D.SILENT)
    tx.note("warning", "duties_missed", f"we fall silent in this round: {reason}")


def save(tx: Transaction, duty: Duty, state: DutyState | None = None) -> Duty:
    """Write the duty's row, in a new state if one is given."""
    duty = msgspec.structs.replace(duty, state=advance("duty", duty.state, state or duty.state))
    tx.put(f"duty/{duty.announcement}", duty)
    return duty


def done(tx: Transaction, key: str, name: str, outcome: Outcome) -> None:
    """Take an outcome of one of a duty's effects."""
    duty, run = tx.get(key, Duty), tx.run
    if duty is None or run is None or duty.state in ENDED:
        return
    round_ = tx.need(f"round/{duty.announcement}", Round)
    match outcome:
        case OracleAnnounced(items=items):
            publish_thermometers(tx, run, round_, items, "oracles")
            save(tx, duty, D.ANNOUNCED)
        case Drawn(data=data):
            save(tx, msgspec.structs.replace(duty, salt=data))
        case LinkRead(link=link):
            save(tx, msgspec.structs.replace(duty, link=link))
        case Fetched(path=path):
            replica = tx.need("replica", Replica)
            if name.startswith("shard:") and replica.dataset is not None:
                used(tx, replica.dataset, Digest(name.partition(":")[2]))
            save(tx, msgspec.structs.replace(duty, paths=with_item(duty.paths, Digest(name.partition(":")[2]), path)))
        case Failed(reason=reason) if name.startswith("delta:"):
            told = evaluation.plain(f"its blob cannot be had: {reason}")
            workers = evaluation.workers_of(round_, Digest(name.partition(":")[2]))
            for worker in workers:
                tx.note("warning", "blobs_refused", f"delta of {worker[:8]}: {reason}")
            save(tx, msgspec.structs.replace(duty, bad={**duty.bad, **dict.fromkeys(workers, told)}))
        case Failed(reason=reason) if name in ("attest", "evaluate") or name.startswith("shard:"):
            silent(tx, duty, reason)
        case Computed(result=EvaluateResult() as result):
            hashed(tx, run, round_, duty, result)
        case OracleAttested(items=items):
            assert round_.receipt is not None
            body = Attestation(
                run=run.id,
                announcement=round_.id,
                round=round_.announcement.round,
                receipt=round_.receipt[0],
                verdicts=duty.verdicts,
                items=items,
            )
            tx.say(f"{round_.id}/attestation", body)
            save(tx, duty, D.ATTESTED)
        case _:
            raise IllegalTransition(f"{key}: {name} ended with {type(outcome).__name__}")


def hashed(tx: Transaction, run: Run, round_: Round, duty: Duty, result: EvaluateResult | None) -> None:
    """The verdict is complete: its hash goes out first."""
    verdict = evaluation.verdict(run, round_, duty, result)
    assert round_.receipt is not None
    body = VerdictHash(
        run=run.id,
        announcement=round_.id,
        round=round_.announcement.round,
        receipt=round_.receipt[0],
        digest=verdict_digest(tx.me.pubkey, verdict),
    )
    tx.say(f"{round_.id}/verdict-hash", body)
    duty = msgspec.structs.replace(duty, verdict=verdict)
    if duty.state is D.ACKNOWLEDGED:
        duty = save(tx, duty, D.EVALUATING)
    save(tx, duty, D.HASHED)
