"""A validator's work for the pay of an epoch of several rounds: thermometers when it opens, their attestation when it is over (`core.rounds.epoch`)."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Failed, OracleAnnounce, OracleAnnounced, OracleAttest, OracleAttested, Outcome
from nostrain.core.rounds import epoch
from nostrain.core.rows import EpochDuty, Round, Run
from nostrain.core.tables import EpochState, advance
from nostrain.core.timing import epoch_ends, settled_by
from nostrain.core.transaction import Transaction
from nostrain.core.validator import NEVER_CAME_BACK, may_begin, outcomes_of, publish_thermometers
from nostrain.errors import IllegalTransition
from nostrain.protocol.digests import epoch_event_id
from nostrain.protocol.messages import EpochAttestation

E = EpochState
ENDED = (E.ATTESTED, E.SILENT)


def decide(tx: Transaction) -> None:
    """Take up an epoch that opens; attest each one that is over, also of a run that was halted: a coordinator that contradicts itself at the end
    of an epoch would have the work for nothing.
    """
    run = tx.run
    if run is None or "validator" not in tx.me.roles or not epoch.together(run.manifest):
        return
    round_ = tx.get(f"round/{run.open}", Round) if not run.halted else None
    if round_ is not None and epoch.opens(run, round_) and tx.get(f"epoch/{round_.id}", EpochDuty) is None and may_begin(tx, round_):
        tx.put(f"epoch/{round_.id}", EpochDuty(announcement=round_.id))
    for key in tx.keys("epoch/"):
        duty = tx.need(key, EpochDuty)
        if duty.state not in ENDED:
            step(tx, run, tx.need(f"round/{duty.announcement}", Round), duty)


def step(tx: Transaction, run: Run, anchor: Round, duty: EpochDuty) -> None:
    """Emit what the state calls for; fall silent when it is too late for that."""
    if duty.state is E.ANNOUNCING and tx.now > anchor.announcement.deadlines.commit_by:
        silent(tx, duty, "our oracle did not announce before the commitments were due")
    elif tx.now > settled_by(run, anchor):
        silent(tx, duty, "the time to attest is over")
    elif duty.state is E.ANNOUNCING:
        workers = anchor.announcement.workers
        events = tuple((worker, epoch_event_id(anchor.id, worker)) for worker in workers)
        digits = len(run.manifest.scoring.levels_ppm)
        maturity = epoch_ends(run, anchor)
        tx.emit(OracleAnnounce(owner=f"epoch/{anchor.id}", name="announce", events=events, digits=digits, maturity=maturity))
    elif duty.state is E.ANNOUNCED and epoch.over(tx, run, anchor):
        attest(tx, run, anchor, duty)


def attest(tx: Transaction, run: Run, anchor: Round, duty: EpochDuty) -> None:
    """The levels that follow from the scores of all its rounds."""
    outcomes = outcomes_of(tx, anchor, epoch.levels(tx, run, anchor), epoch_event_id, len(run.manifest.scoring.levels_ppm))
    if outcomes is None:
        silent(tx, duty, NEVER_CAME_BACK)
        return
    named = epoch.verdicts_digest(epoch.rounds_in(tx, run.manifest, anchor))
    tx.emit(OracleAttest(owner=f"epoch/{anchor.id}", name="attest", outcomes=outcomes))
    save(tx, msgspec.structs.replace(duty, verdicts=named), E.ATTESTING)


def done(tx: Transaction, key: str, outcome: Outcome) -> None:
    """Take an outcome of one of the effects."""
    duty, run = tx.get(key, EpochDuty), tx.run
    if duty is None or run is None or duty.state in ENDED:
        return
    anchor = tx.need(f"round/{duty.announcement}", Round)
    match outcome:
        case OracleAnnounced(items=items):
            publish_thermometers(tx, run, anchor, items, "epoch-oracles")
            save(tx, duty, E.ANNOUNCED)
        case OracleAttested(items=items):
            assert duty.verdicts is not None
            body = EpochAttestation(
                run=run.id,
                announcement=anchor.id,
                round=anchor.announcement.round,
                through=min(run.round, epoch.last_of(run.manifest, anchor.announcement.round)),
                verdicts=duty.verdicts,
                items=items,
            )
            tx.say(f"{anchor.id}/epoch-attestation", body)
            save(tx, duty, E.ATTESTED)
        case Failed(reason=reason):
            silent(tx, duty, reason)
        case _:
            raise IllegalTransition(f"{key} ended with {type(outcome).__name__}")


def silent(tx: Transaction, duty: EpochDuty, reason: str) -> None:
    """Say nothing about the pay of this epoch."""
    tx.withdraw(f"epoch/{duty.announcement}")
    save(tx, msgspec.structs.replace(duty, reason=reason), E.SILENT)
    tx.note("warning", "duties_missed", f"we do not attest the pay of this epoch: {reason}")


def save(tx: Transaction, duty: EpochDuty, state: EpochState) -> None:
    """Write the row, in its new state."""
    tx.put(f"epoch/{duty.announcement}", msgspec.structs.replace(duty, state=advance("epoch", duty.state, state)))
