"""How fast a worker is, measured before its first enrolment: a newcomer has trained nothing yet that would tell (docs/adr/0049).

It needs the manifest alone, so that it goes on beside the fetching of dataset and checkpoint. What came of it is remembered in the worker's row
with the machine that it was measured on; it is measured again when that is another: another engine, device or number of threads.
"""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Compute, Computed, Failed, Outcome
from nostrain.core.timing import MEASURE_S
from nostrain.core.training import speed
from nostrain.core.transaction import Transaction
from nostrain.errors import IllegalTransition
from nostrain.protocol.jobs import CalibrateJob, CalibrateResult

KEY = "calibration"


def decide(tx: Transaction) -> None:
    """Measure once for each machine, as soon as there is a run."""
    run = tx.run
    if run is None or run.halted or run.finished or "worker" not in tx.me.roles or known(tx):
        return
    since = tx.memory.measuring
    if since is None or since > tx.now:  # a clock that was ahead is set right: nobody waits for its time to come again
        tx.put("worker", msgspec.structs.replace(tx.memory, measuring=tx.now))
    tx.emit(Compute(owner=KEY, name="calibrate", job=CalibrateJob(model=run.manifest.model, training=run.manifest.training)))


def known(tx: Transaction) -> bool:
    """Whether there is nothing to measure (any more)."""
    return tx.memory.machine == tx.me.machine


def awaited(tx: Transaction) -> bool:
    """Whether the first enrolment should wait for it: only so long, since a busy machine loads its framework for minutes."""
    since = tx.memory.measuring
    return not known(tx) and since is not None and tx.now <= since + MEASURE_S


def done(tx: Transaction, outcome: Outcome) -> None:
    """A worker that could not be measured takes part all the same, and says how fast it is after its first training."""
    memory = msgspec.structs.replace(tx.memory, machine=tx.me.machine, measuring=None)
    match outcome:
        case Computed(result=CalibrateResult(tokens=tokens, train_ms=spent)):
            measured = speed(tokens, spent)
            tx.put("worker", msgspec.structs.replace(memory, tokens_per_s=measured))
            tx.note("info", "calibrations", f"this machine trains {measured:,} tokens a second")
        case Failed(reason=reason):
            tx.put("worker", memory)
            tx.note("warning", "calibrations_failed", f"how fast this machine trains is not known yet: {reason}")
        case _:
            raise IllegalTransition(f"{KEY} ended with {type(outcome).__name__}")
