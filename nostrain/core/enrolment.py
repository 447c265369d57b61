"""Taking part: one enrolment for each role, said again when the coordinator has stopped listing us."""

from __future__ import annotations

from nostrain.core.effects import Credentials, CredentialsRead, Outcome
from nostrain.core.rows import Round, Run
from nostrain.core.transaction import Transaction
from nostrain.protocol.messages import Enrolment

KEY = "enrolment"


def decide(tx: Transaction) -> None:
    """Enrol in the run that we follow; again, later, when an open round does not list us."""
    run = tx.run
    if run is None or run.halted or run.finished:
        return
    if "validator" in tx.me.roles and tx.said(f"{KEY}/0") is None:
        tx.emit(Credentials(owner=KEY, name="credentials", run=run.id, chain_length=run.manifest.rounds))
    elif "worker" in tx.me.roles and tx.said(f"{KEY}/0") is None:
        tx.say(f"{KEY}/0", Enrolment(run=run.id, role="worker", name=tx.me.name, engine="pytorch"))
    elif tx.me.pubkey in run.enrolled:
        repeat(tx, run)


def repeat(tx: Transaction, run: Run) -> None:
    """The same enrolment with a new date, once for each round that leaves us out."""
    round_ = tx.get(f"round/{run.open}", Round)
    mine = run.enrolled[tx.me.pubkey][2]
    if round_ is None or run.distrusted is not None:
        return
    listed = tx.me.pubkey in round_.announcement.workers or any(e.pubkey == tx.me.pubkey for e in round_.announcement.validators)
    first = tx.said(f"{KEY}/0")
    if not listed and first is not None and first.created_at < tx.now:
        tx.say(f"{KEY}/{round_.announcement.round}", mine)


def done(tx: Transaction, outcome: Outcome) -> None:
    """The oracle's public half is known: enrol as a validator."""
    run = tx.run
    if run is None or not isinstance(outcome, CredentialsRead):
        return
    tx.say(
        f"{KEY}/0",
        Enrolment(
            run=run.id,
            role="validator",
            name=tx.me.name,
            engine="pytorch",
            oracle=outcome.oracle,
            endorsement=outcome.endorsement,
            chain_end=outcome.chain_end,
            chain_length=run.manifest.rounds,
        ),
    )
