"""What a worker trains in a delayed run: the delta of the next round, while that of the open one is scored (design section 12, docs/adr/0048).

Call S_r the state that round r opens on. The deltas of round r are trained from S_{r-1} (those of the first from S_1) and scored and applied at
S_r. So the training for round r+1 begins as soon as round r is announced, our replica stands on S_r and our training for round r is through;
its shard is fetched when S_r is known, whether our replica stands there already or not. When round r+1 lists us, the submission takes the delta
from here (`core.worker`). At most two rows are there at one time: of the open round and of the next.

What S_r lacks of our own, the delta of round r, training for r+1 begins with: the outer step over it alone (`protocol.jobs.OwnStep`).

Private state goes from training to training, not from accepted delta to accepted delta: nobody knows yet what becomes of the last one. What a
committed delta that is refused has sent is lost, what it left behind is kept.
"""

from __future__ import annotations

import msgspec

from nostrain.core import training
from nostrain.core.ahead_rows import Ahead
from nostrain.core.cache import leaving, used
from nostrain.core.effects import Compute, Computed, Failed, Fetch, Fetched, Outcome
from nostrain.core.escrow import ticket
from nostrain.core.escrow.payee import locked
from nostrain.core.escrow.rows import Payee
from nostrain.core.rounds import epoch
from nostrain.core.rows import Replica, Round, Run, Submission
from nostrain.core.run import located
from nostrain.core.tables import AheadState, ReplicaState, SubmissionState, advance
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.liquidity import HELD, able
from nostrain.errors import IllegalTransition
from nostrain.protocol.assignment import assigned_ahead
from nostrain.protocol.dataset import DatasetManifest
from nostrain.protocol.jobs import OwnStep, TrainResult
from nostrain.units import Digest

A, S = AheadState, SubmissionState
ENDED = (S.ACCEPTED, S.REFUSED)


def key_of(number: int) -> str:
    """Row of our training for round `number`."""
    return f"ahead/{number:05d}"


def decide(tx: Transaction) -> None:
    """Keep the rows of the rounds that are still to come, and take each one step further."""
    run, replica = tx.run, tx.get("replica", Replica)
    if run is None or not run.manifest.delayed or "worker" not in tx.me.roles:
        return
    useless = run.halted or run.distrusted is not None or replica is None or replica.state is ReplicaState.DIVERGED
    coming = {} if useless else bases(tx, run)
    for key in tx.keys("ahead/"):
        row = tx.need(key, Ahead)
        if coming.get(row.number) != row.base:
            tx.withdraw(key)
            tx.delete(key)
    if replica is None or replica.dataset is None:
        return
    for number, base in coming.items():
        one = tx.get(key_of(number), Ahead) or begun(tx, run, replica.dataset, number, base)
        if one is not None and one.state is A.PREPARING:
            prepare(tx, run, replica, replica.dataset, one)


def bases(tx: Transaction, run: Run) -> dict[int, Digest]:
    """The rounds that we may still hand in a delta for, and the states that these are trained from: the open round, or the one that is to open now, and
    the one after it."""
    number, said = run.round + 1, run.open
    coming = {number: run.before or run.state_id} if said is None or takes_part(tx, tx.need(f"round/{said}", Round)) else {}
    coming[number + 1] = run.state_id
    return {at: base for at, base in coming.items() if at <= run.manifest.rounds}


def takes_part(tx: Transaction, round_: Round) -> bool:
    """Whether a delta of ours may still be committed in the round."""
    mine = tx.get(f"work/{round_.id}", Submission)
    if mine is not None:
        return mine.state not in ENDED
    return tx.me.pubkey in round_.announcement.workers and tx.now <= round_.announcement.deadlines.commit_by


def begun(tx: Transaction, run: Run, dataset: DatasetManifest, number: int, base: Digest) -> Ahead | None:
    """A new row, if the round may have us. It costs nothing yet, and remembers the state to train from: our replica soon stands on the next one."""
    if tx.me.pubkey not in run.enrolled:
        return None
    work = assigned_ahead(base, number, tx.me.pubkey, len(dataset.shards))
    return Ahead(number=number, base=base, shard=dataset.shards[work.shard].sha256)


def promising(tx: Transaction, run: Run, number: int) -> bool:
    """Whether a submission in round `number` could be paid, as far as that is known before its announcement."""
    opens = number == epoch.first_of(run.manifest, number)
    if not able(tx, run, leads=False, locked=not opens or holding(tx)) or (tx.memory.pass_over and ticket.charged(run.manifest)):
        return False
    open_ = tx.get(f"round/{run.open}", Round)
    if opens or open_ is None:
        return True
    mine = tx.get(f"work/{open_.id}", Submission)
    return locked(tx, run, open_) or (epoch.opens(run, open_) and mine is not None and mine.state not in ENDED)


def holding(tx: Transaction) -> bool:
    """Whether escrows of ours hold money now: the room that they take is no lack, they are settled before the next ones are locked."""
    return any(level.state in HELD for key in tx.keys("payee/") for level in tx.need(key, Payee).levels)


def within_reach(tx: Transaction, round_: Round) -> bool:
    """Whether there is, or will be, a delta of ours for this round: we have its base, and can come to the state that it opens on."""
    row, replica = tx.get(key_of(round_.announcement.round), Ahead), tx.get("replica", Replica)
    if row is None or row.checkpoint is None or row.state is A.FAILED or replica is None:
        return False
    return replica.state in (ReplicaState.READY, ReplicaState.ADVANCING)


def prepare(tx: Transaction, run: Run, replica: Replica, dataset: DatasetManifest, row: Ahead) -> None:
    """Base and shard first, both durable; then, when it is its turn, the training job. Nothing but the base as long as nobody would pay for it."""
    key, work = key_of(row.number), assigned_ahead(row.base, row.number, tx.me.pubkey, len(dataset.shards))
    wanted = submits(tx, run, row.number) or promising(tx, run, row.number)
    if wanted and row.shard_path is None and not leaving(tx, row.shard):
        shard = located(run, dataset.shards[work.shard])
        tx.emit(Fetch(owner=key, name="shard", blob=shard, whose="the dataset", author=run.coordinator, must=True))
    if row.checkpoint is None and replica.state is not ReplicaState.BOOTING and replica.state_id == row.base:
        row = msgspec.structs.replace(row, checkpoint=replica.checkpoint)
    tx.put(key, row)
    if not wanted or row.shard_path is None or row.checkpoint is None or not its_turn(tx, run, row):
        return
    state_in, own = left_before(tx, run, row.number)
    job = training.train_job(
        tx,
        run,
        dataset,
        row.number,
        row.base,
        checkpoint=row.checkpoint,
        shard=row.shard_path,
        seed=work.seed,
        state_in=state_in,
        own=own,
    )
    row = msgspec.structs.replace(row, state=advance("ahead", row.state, A.TRAINING), delta_path=job.delta_out, state_out=job.state_out)
    tx.put(key, row)
    tx.emit(Compute(owner=key, name="train", job=job))


def submits(tx: Transaction, run: Run, number: int) -> bool:
    """Whether the round is open and we have a submission in it."""
    open_ = tx.get(f"round/{run.open}", Round)
    return open_ is not None and open_.announcement.round == number and tx.get(f"work/{open_.id}", Submission) is not None


def its_turn(tx: Transaction, run: Run, row: Ahead) -> bool:
    """Whether to train now: for the open round if we submit in it, for the next one once our part of the open one is trained, or we have none.

    We have none either if our replica, which stands on the next one's base, has never stood on that of the open one.
    """
    open_ = tx.get(f"round/{run.open}", Round)
    if open_ is None:
        return False
    if open_.announcement.round == row.number:
        return submits(tx, run, row.number)
    mine, before = tx.get(f"work/{open_.id}", Submission), tx.get(key_of(open_.announcement.round), Ahead)
    if before is None or before.state is A.FAILED or before.checkpoint is None:
        return True
    return mine is not None and mine.delta is not None


def left_before(tx: Transaction, run: Run, number: int) -> tuple[str | None, OwnStep | None]:
    """The private state to begin round `number` with, and the delta that is on its way into the state after our base: those of the round before,
    whatever became of that delta since, unless it was never committed; else the state of the last delta that was used."""
    for key in tx.keys("work/"):
        mine = tx.need(key, Submission)
        said = tx.need(f"round/{mine.announcement}", Round).announcement
        if said.round != number - 1 or mine.delta is None or mine.delta_path is None:
            continue
        if mine.state is not S.REFUSED or tx.said(f"{mine.announcement}/commitment") is not None:
            return mine.state_out, OwnStep(run.manifest.outer, mine.delta.sha256, mine.delta_path, len(said.workers))
    return tx.memory.state_path, None


def done(tx: Transaction, key: str, outcome: Outcome) -> None:
    """Take an outcome of one of a row's effects."""
    row, replica = tx.get(key, Ahead), tx.need("replica", Replica)
    if row is None:
        return
    match outcome:
        case Fetched(path=path):
            tx.put(key, msgspec.structs.replace(row, shard_path=path))
            if replica.dataset is not None:
                used(tx, replica.dataset, row.shard)
        case Computed(result=TrainResult() as trained):
            tx.put(key, msgspec.structs.replace(row, state=advance("ahead", row.state, A.TRAINED), delta=trained.delta))
            training.remember(tx, trained)
        case Failed(reason=reason):
            tx.put(key, msgspec.structs.replace(row, state=advance("ahead", row.state, A.FAILED), reason=reason))
            tx.note("warning", "trainings_failed", f"we cannot train for round {row.number}: {reason}")
        case _:
            raise IllegalTransition(f"{key} ended with {type(outcome).__name__}")
