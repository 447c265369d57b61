"""What a worker decides: train on the open round, commit, and show the bytes only after enough validators acknowledged the receipt.

In a delayed run the training is not the submission's own: it has begun before (`core.ahead`), and the submission takes what comes of it.
"""

from __future__ import annotations

import msgspec

from nostrain.core import ahead, training
from nostrain.core.ahead_rows import Ahead
from nostrain.core.cache import leaving, used
from nostrain.core.effects import Compute, Computed, Draw, Drawn, Failed, Fetch, Fetched, Outcome, TicketBought, Upload, Uploaded
from nostrain.core.escrow import patience, ticket
from nostrain.core.escrow.payee import locked
from nostrain.core.rounds.assigned import assigned
from nostrain.core.rounds.epoch import opens
from nostrain.core.rounds.scoring import pinned
from nostrain.core.rows import Replica, Round, Run, Submission
from nostrain.core.run import located
from nostrain.core.tables import AheadState, ReplicaState, SubmissionState, advance
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.liquidity import able
from nostrain.errors import IllegalTransition
from nostrain.protocol.digests import commitment_digest
from nostrain.protocol.jobs import TrainResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Commitment, Reveal
from nostrain.units import Digest

S = SubmissionState
ENDED = (S.ACCEPTED, S.REFUSED)


def decide(tx: Transaction) -> None:
    """Start a submission on the open round; take every submission that has not ended one step further."""
    run = tx.run
    if run is None or run.halted or "worker" not in tx.me.roles:
        return
    begin(tx, run)
    for key in tx.keys("work/"):
        submission = tx.need(key, Submission)
        if submission.state not in ENDED:
            step(tx, run, tx.need(f"round/{submission.announcement}", Round), submission)


def begin(tx: Transaction, run: Run) -> None:
    """A new row for the open round if it lists us, our replica stands on its state (in a delayed run: we have the state to train from), there is
    time left, our node can settle it, and nobody tried to cheat us.

    (A coordinator whose offers are false would otherwise live on the fees of those who refuse them round after round.)
    """
    if run.distrusted is not None:
        return
    replica, round_ = tx.get("replica", Replica), tx.get(f"round/{run.open}", Round)
    if round_ is None or replica is None or replica.dataset is None or tx.get(f"work/{round_.id}", Submission) is not None:
        return
    if not able(tx, run, leads=False, locked=not opens(run, round_)):
        return
    ready = ahead.within_reach(tx, round_) if run.manifest.delayed else stands(replica, round_)
    # Once an epoch is open, no more escrows are: who has none would work for nothing.
    ready = ready and (opens(run, round_) or locked(tx, run, round_))
    if ready and tx.me.pubkey in round_.announcement.workers and tx.now <= round_.announcement.deadlines.commit_by:
        passed = patience.exhausted(tx, run)
        mine = Submission(announcement=round_.id)
        tx.put(
            f"work/{round_.id}",
            msgspec.structs.replace(mine, state=S.REFUSED, reason="let pass: earlier tickets bought no lock") if passed else mine,
        )


def stands(replica: Replica, round_: Round) -> bool:
    """Whether we have computed the state that the round opens on ourselves, and said so."""
    return replica.state is ReplicaState.READY and replica.confirming is None and replica.state_id == round_.announcement.state_id


def step(tx: Transaction, run: Run, round_: Round, mine: Submission) -> None:
    """Emit what the submission's state calls for, or close it when its time is over."""
    deadlines = round_.announcement.deadlines
    if run.distrusted is not None and mine.state in (S.PREPARING, S.TRAINING, S.TRAINED):
        refuse(tx, mine, "the coordinator is not trusted any more")
        return
    if mine.state in (S.PREPARING, S.TRAINING, S.TRAINED) and tx.now <= deadlines.commit_by:
        ticket.buy(tx, run, round_, mine)
    if round_.result is not None:
        close(tx, run, round_, mine)
    elif mine.state in (S.PREPARING, S.TRAINING, S.TRAINED) and (tx.now > deadlines.commit_by or round_.receipt is not None):
        refuse(tx, mine, "late: the receipt was due before the delta was ready")
    elif run.manifest.delayed and mine.state in (S.PREPARING, S.TRAINING):
        take(tx, round_, mine)
    elif mine.state is S.PREPARING:
        prepare(tx, run, round_, mine)
    elif mine.state is S.TRAINED and locked(tx, run, round_) and stands(tx.need("replica", Replica), round_):
        commit(tx, run, round_, mine)
    elif mine.state is S.COMMITTED and round_.receipt is not None:
        if tx.me.pubkey not in pinned(round_):
            refuse(tx, mine, "the receipt does not pin our commitment")
        elif len(round_.acknowledgements) >= run.manifest.threshold:
            assert mine.delta is not None and mine.delta_path is not None  # noqa: PT018 - set by TRAINED
            save(tx, msgspec.structs.replace(mine, state=advance("submission", mine.state, S.UPLOADING)))
            tx.emit(
                Upload(
                    owner=f"work/{round_.id}",
                    name="upload",
                    blob=mine.delta,
                    path=mine.delta_path,
                    servers=run.manifest.blob_servers,
                    ticket=round_.id if ticket.charged(run.manifest) else None,
                )
            )
    elif mine.state is S.UPLOADING and mine.urls:
        reveal(tx, run, round_, mine)


def prepare(tx: Transaction, run: Run, round_: Round, mine: Submission) -> None:
    """Salt and shard first, both durable; then the training job."""
    key = f"work/{round_.id}"
    replica = tx.need("replica", Replica)
    assert replica.dataset is not None and replica.checkpoint is not None  # noqa: PT018 - begin asked for a ready replica
    work = assigned(round_, replica.dataset, tx.me.pubkey)
    shard = replica.dataset.shards[work.shard]
    if mine.salt is None:
        tx.emit(Draw(owner=key, name="salt", size=32))
    if mine.shard is None:
        mine = msgspec.structs.replace(mine, shard=shard.sha256)
        save(tx, mine)
    if mine.shard_path is None and not leaving(tx, shard.sha256):
        tx.emit(Fetch(owner=key, name="shard", blob=located(run, shard), whose="the dataset", author=run.coordinator, must=True))
    if mine.salt is None or mine.shard_path is None:
        return
    job = training.train_job(
        tx,
        run,
        replica.dataset,
        round_.announcement.round,
        Digest(round_.id),
        checkpoint=replica.checkpoint,
        shard=mine.shard_path,
        seed=work.seed,
        state_in=tx.memory.state_path,
    )
    save(
        tx,
        msgspec.structs.replace(
            mine, state=advance("submission", mine.state, S.TRAINING), delta_path=job.delta_out, state_out=job.state_out
        ),
    )
    tx.emit(Compute(owner=key, name="train", job=job))


def take(tx: Transaction, round_: Round, mine: Submission) -> None:
    """Salt, durable, and the delta that is trained, or still training, for this round of a delayed run."""
    key = f"work/{round_.id}"
    row = tx.get(ahead.key_of(round_.announcement.round), Ahead)
    if row is None or row.state is AheadState.FAILED:
        refuse(tx, mine, f"train: {row.reason}" if row is not None else "train: what was trained for this round is not there")
        return
    if mine.salt is None:
        tx.emit(Draw(owner=key, name="salt", size=32))
    if row.state is not AheadState.PREPARING:
        mine = msgspec.structs.replace(mine, state=advance("submission", mine.state, S.TRAINING))
    if row.delta is not None:
        mine = msgspec.structs.replace(mine, delta=row.delta, delta_path=row.delta_path, state_out=row.state_out)
    if mine.delta is not None and mine.salt is not None:
        mine = msgspec.structs.replace(mine, state=advance("submission", mine.state, S.TRAINED))
    save(tx, mine)


def commit(tx: Transaction, run: Run, round_: Round, mine: Submission) -> None:
    """Bind ourselves to the delta, which is on disk together with its residual."""
    assert mine.delta is not None and mine.salt is not None  # noqa: PT018 - set by TRAINED
    digest = commitment_digest(tx.me.pubkey, round_.id, mine.salt, mine.delta)
    body = Commitment(
        run=run.id,
        announcement=round_.id,
        round=round_.announcement.round,
        commitment=digest,
        state_id=round_.announcement.state_id,
        trained_from=round_.base or msgspec.UNSET,
    )
    tx.say(f"{round_.id}/commitment", body)
    save(tx, msgspec.structs.replace(mine, state=advance("submission", mine.state, S.COMMITTED)))


def reveal(tx: Transaction, run: Run, round_: Round, mine: Submission) -> None:
    """The bytes are on the servers: show salt and URLs."""
    said = tx.said(f"{round_.id}/commitment")
    assert said is not None and said.event_id is not None and mine.salt is not None and mine.delta is not None  # noqa: PT018 - we are pinned
    body = Reveal(
        run=run.id,
        announcement=round_.id,
        round=round_.announcement.round,
        commitment=said.event_id,
        salt=mine.salt,
        blob=BlobRef(sha256=mine.delta.sha256, size=mine.delta.size, urls=mine.urls),
    )
    tx.say(f"{round_.id}/reveal", body)
    save(tx, msgspec.structs.replace(mine, state=advance("submission", mine.state, S.REVEALED)))


def close(tx: Transaction, run: Run, round_: Round, mine: Submission) -> None:
    """The result is known: if it uses our delta, the private state that produced it becomes ours; otherwise the round's work is dropped.

    But for a newcomer's, none of whose deltas was used yet, if others' were: with neither residual nor moments it would stay behind them for ever
    (docs/adr/0061). A delayed run keeps private state anyway.
    """
    assert round_.result is not None
    result = round_.result[1]
    if any(item.worker == tx.me.pubkey for item in result.accepted) and mine.state is S.REVEALED:
        tx.withdraw(f"work/{round_.id}")
        save(tx, msgspec.structs.replace(mine, state=advance("submission", mine.state, S.ACCEPTED)))
        patience.remember(tx, round_, mine)
        memory = tx.memory
        tx.put("worker", msgspec.structs.replace(memory, state_path=mine.state_out, unused=False))
        return
    newcomer = tx.memory.state_path is None or tx.memory.unused
    if newcomer and mine.state is S.REVEALED and result.accepted and not run.manifest.delayed:
        tx.put("worker", msgspec.structs.replace(tx.memory, state_path=mine.state_out, unused=True))
    reasons = {item.worker: item.reason for item in result.refused}
    refuse(tx, mine, reasons.get(tx.me.pubkey, "the round closed without our delta"))


def refuse(tx: Transaction, mine: Submission, reason: str, *, unsold: bool = False) -> None:
    """End the submission without use. `unsold`: its ticket, which may be paid, was refused."""
    unsold = unsold or ticket.asked(tx, mine)
    tx.withdraw(f"work/{mine.announcement}")
    save(tx, msgspec.structs.replace(mine, state=advance("submission", mine.state, S.REFUSED), reason=reason))
    if unsold:
        ticket.given_up(tx, tx.need(f"round/{mine.announcement}", Round))
    patience.remember(tx, tx.need(f"round/{mine.announcement}", Round), mine, unsold=unsold)
    tx.note("warning", "submissions_refused", f"our submission was not used: {reason}")


def save(tx: Transaction, mine: Submission) -> None:
    """Write the submission's row."""
    tx.put(f"work/{mine.announcement}", mine)


def done(tx: Transaction, key: str, name: str, outcome: Outcome) -> None:
    """Take an outcome of one of a submission's effects."""
    mine = tx.get(key, Submission)
    if mine is None or mine.state in ENDED:
        return
    match outcome:
        case Drawn(data=data):
            save(tx, msgspec.structs.replace(mine, salt=data))
        case Fetched(path=path):
            save(tx, msgspec.structs.replace(mine, shard_path=path))
            replica = tx.need("replica", Replica)
            if replica.dataset is not None and mine.shard is not None:
                used(tx, replica.dataset, mine.shard)
        case Computed(result=TrainResult(delta=delta) as trained):
            save(tx, msgspec.structs.replace(mine, state=advance("submission", mine.state, S.TRAINED), delta=delta))
            training.remember(tx, trained)
        case TicketBought():
            save(tx, ticket.bought(tx, mine, outcome))
        case Uploaded(urls=urls):
            save(tx, msgspec.structs.replace(mine, urls=urls))
        case Failed(reason=reason):
            refuse(tx, mine, f"{name}: {reason}", unsold=name == ticket.NAME)
        case _:
            raise IllegalTransition(f"{key}: {name} ended with {type(outcome).__name__}")
