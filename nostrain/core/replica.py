"""Our own copy of the model's state: fetched once, then advanced result by result, each time compared with what the result says (decision 6).

Who is far behind does not repeat what it missed, but goes on from a later checkpoint (`core.leap`).
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from nostrain.core import leap
from nostrain.core.effects import Compute, Computed, DatasetRead, Failed, Fetch, FetchDataset, Fetched, Outcome
from nostrain.core.leap import KEY
from nostrain.core.pruning import KEEP_ROUNDS
from nostrain.core.rows import Replica, Round, Run, Waiting
from nostrain.core.run import located, with_item
from nostrain.core.tables import ReplicaState, advance
from nostrain.core.timing import HEAR_S
from nostrain.core.transaction import Transaction
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.jobs import AggregateJob, AggregateResult, InspectJob, InspectResult, ValidationJob, ValidationResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Accepted, Confirmation, Result
from nostrain.units import Digest, Pubkey, UnixTime


def decide(tx: Transaction) -> None:
    """Ask for what the replica lacks: dataset, a checkpoint, the deltas of the next result, the outer step, the confirmation."""
    run, replica = tx.run, tx.get(KEY, Replica)
    if run is None or replica is None or run.halted or (replica.state is ReplicaState.DIVERGED and replica.confirming is None):
        return
    if replica.dataset is None:
        tx.emit(FetchDataset(owner=KEY, name="dataset", blob=located(run, run.manifest.dataset), author=run.coordinator))
    if replica.leap is not None:
        leap.step(tx, run, replica.leap)
    elif replica.checkpoint is None:
        if tx.now >= replica.hear_until:
            join(tx, run, replica)
    elif replica.state is ReplicaState.BOOTING:
        tx.emit(Compute(owner=KEY, name="inspect", job=InspectJob(model=run.manifest.model, checkpoint=replica.checkpoint)))
    elif replica.confirming is not None:
        confirm(tx, run, replica)
    else:
        follow(tx, run, replica)


def join(tx: Transaction, run: Run, replica: Replica) -> None:
    """Take the first state that we have: a checkpoint that was confirmed, or else the manifest's. While the history is still coming, listen on."""
    if tx.outstanding(f"{KEY}#checkpoint") is None and lags(tx, run):
        tx.put(KEY, msgspec.structs.replace(replica, hear_until=UnixTime(tx.now + HEAR_S)))
    elif not leap.begin(tx, run, replica):
        first = located(run, run.manifest.checkpoint)
        tx.emit(Fetch(owner=KEY, name="checkpoint", blob=first, whose="the manifest", author=run.coordinator, must=True))


def lags(tx: Transaction, run: Run) -> bool:
    """Whether what we know of the chain ends in the past, and the coordinator has spoken of later rounds."""
    round_ = tx.get(f"round/{run.open}", Round)
    present = round_ is not None and tx.now <= round_.announcement.deadlines.attest_by
    said = (tx.need(key, Waiting).message for key in tx.keys("waiting/")) if not present else ()
    return any(message.author == run.coordinator and getattr(message.body, "round", 0) > run.round + 1 for message in said)


def follow(tx: Transaction, run: Run, replica: Replica) -> None:
    """Start on the result that continues our head, if it is known."""
    announcement = run.announcements.get(replica.head)
    if announcement is None or announcement not in run.results:
        return
    round_ = tx.need(f"round/{announcement}", Round)
    assert round_.result is not None
    result = round_.result[1]
    if not result.accepted:
        arrived(tx, run, replica, round_)
        return
    missing = [(item.worker, round_.reveals[item.worker].blob) for item in result.accepted if item.delta.sha256 not in replica.paths]
    if (replica.state is ReplicaState.READY or (replica.gone and missing)) and leap.begin(tx, run, replica):
        return
    if replica.state is ReplicaState.READY:
        replica = msgspec.structs.replace(replica, state=advance("replica", replica.state, ReplicaState.ADVANCING))
        tx.put(KEY, replica)
    for worker, blob in missing:
        where, name, spare = located(run, blob), f"delta:{blob.sha256}", may_be_gone(run, replica)
        tx.emit(Fetch(owner=KEY, name=name, blob=where, whose=worker[:8], author=worker, must=True, spare=spare))
    if not missing:
        tx.emit(Compute(owner=KEY, name=f"aggregate:{replica.head}", job=outer_step(tx, run, replica, result)))


def may_be_gone(run: Run, replica: Replica) -> bool:
    """Whether the deltas that the replica needs next are of a round that nobody has to keep, and that was not found out already."""
    return not replica.gone and replica.round + 1 <= run.round - KEEP_ROUNDS


def outer_step(tx: Transaction, run: Run, replica: Replica, result: Result) -> AggregateJob:
    """The job that computes the state after `result` from ours."""
    accepted = [(item.worker, item.delta) for item in result.accepted]
    return aggregate_job(tx, run, replica, accepted, replica.paths, result.committed, "state")


def aggregate_job(
    tx: Transaction,
    run: Run,
    replica: Replica,
    accepted: list[tuple[Pubkey, BlobRef]],
    paths: Mapping[Digest, str],
    committed: int,
    stem: str,
) -> AggregateJob:
    """The outer step over `accepted` deltas, whose files are in `paths`, in the order given."""
    assert replica.checkpoint is not None and replica.state_id is not None  # noqa: PT018 - callers hold a ready replica
    return AggregateJob(
        model=run.manifest.model,
        codec=run.manifest.codec,
        outer=run.manifest.outer,
        state_id=replica.state_id,
        checkpoint=replica.checkpoint,
        deltas=tuple((delta.sha256, paths[delta.sha256]) for _, delta in accepted),
        committed=committed,
        checkpoint_out=f"{tx.me.work_dir}/{stem}-{replica.round + 1:05d}.safetensors",
    )


def arrived(tx: Transaction, run: Run, replica: Replica, round_: Round) -> None:
    """The replica stands after this round's result; next it is confirmed in public: by whoever took part, and by anyone who is up to date."""
    assert round_.result is not None
    me, announcement = tx.me.pubkey, round_.announcement
    listed = me == run.coordinator or me in announcement.workers or any(entry.pubkey == me for entry in announcement.validators)
    tx.put(
        KEY,
        msgspec.structs.replace(
            replica,
            head=round_.result[0],
            round=announcement.round,
            paths={},
            confirming=round_.id if listed or run.head == round_.result[0] else None,
            validation_nanonats=None,
            unmeasured=False,
            gone=False,
        ),
    )


def confirm(tx: Transaction, run: Run, replica: Replica) -> None:
    """Publish the state that we computed; a validator first measures it on the held-out shard. The first confirmation is of the manifest."""
    assert replica.confirming is not None
    if replica.dataset is None:
        return
    if "validator" in tx.me.roles and replica.validation_nanonats is None and not replica.unmeasured:
        blob = replica.dataset.validation
        if blob.sha256 not in replica.paths:
            tx.emit(Fetch(owner=KEY, name="validation", blob=located(run, blob), whose="the dataset", author=run.coordinator, must=True))
        else:
            tx.emit(Compute(owner=KEY, name=f"validation:{replica.head}", job=validation_job(run, replica)))
        return
    assert replica.state_id is not None and replica.root is not None  # noqa: PT018 - a replica that stands somewhere has both
    tx.say(
        f"{replica.confirming}/confirmation",
        Confirmation(
            run=run.id,
            announcement=replica.confirming,
            round=replica.round,
            result=replica.head,
            state_id=replica.state_id,
            root=replica.root,
            validation_nanonats=replica.validation_nanonats,
        ),
    )
    tx.put(KEY, msgspec.structs.replace(replica, confirming=None))


def validation_job(run: Run, replica: Replica) -> ValidationJob:
    """Loss of our state on the held-out shard."""
    assert replica.dataset is not None and replica.checkpoint is not None  # noqa: PT018 - as in confirm
    return ValidationJob(
        model=run.manifest.model,
        checkpoint=replica.checkpoint,
        shard=replica.paths[replica.dataset.validation.sha256],
        tokens=run.manifest.scoring.validation_tokens,
        sequence_length=run.manifest.training.sequence_length,
        eval_batch=run.manifest.scoring.eval_batch,
        dtype=replica.dataset.dtype,
    )


def done(tx: Transaction, name: str, outcome: Outcome) -> None:
    """Take an outcome of one of the replica's effects."""
    run, replica = tx.run, tx.get(KEY, Replica)
    if run is None or replica is None or (replica.state is ReplicaState.DIVERGED and replica.confirming is None):
        return
    match outcome:
        case DatasetRead(dataset=dataset) if dataset.vocab_size > run.manifest.model.vocab_size:
            diverge(tx, replica, f"the dataset has {dataset.vocab_size} tokens, the model knows {run.manifest.model.vocab_size}")
        case DatasetRead(dataset=dataset):
            tx.put(KEY, msgspec.structs.replace(replica, dataset=dataset))
        case Fetched(path=path) if replica.leap is not None:
            leap.fetched(tx, replica, path)
        case Fetched(path=path) if name == "checkpoint":
            tx.put(KEY, msgspec.structs.replace(replica, checkpoint=path))
        case Fetched(path=path):
            digest = replica.dataset.validation.sha256 if name == "validation" and replica.dataset else Digest(name.removeprefix("delta:"))
            tx.put(KEY, msgspec.structs.replace(replica, paths=with_item(replica.paths, digest, path)))
        case Computed(result=InspectResult() as inspected) if replica.leap is not None:
            leap.inspected(tx, run, replica, inspected)
        case Computed(result=InspectResult() as inspected):
            inspect_done(tx, run, replica, inspected)
        case Computed(result=AggregateResult() as aggregated):
            aggregate_done(tx, run, replica, aggregated)
        case Computed(result=ValidationResult(loss_nanonats=loss)):
            tx.put(KEY, msgspec.structs.replace(replica, validation_nanonats=loss))
        case Failed(reason=reason) if name.startswith("validation"):
            tx.put(KEY, msgspec.structs.replace(replica, unmeasured=True))
            tx.note("warning", "validations_failed", f"round {replica.round} is confirmed without its loss: {reason}")
        case Failed(reason=reason) if replica.leap is not None and name != "dataset":
            leap.failed(tx, replica, reason, for_good=replica.leap.path is not None)
        case Failed(reason=reason) if name.startswith("delta:") and may_be_gone(run, replica):
            gone(tx, replica, reason)
        case Failed(reason=reason):
            diverge(tx, replica, f"{name}: {reason}")
        case _:
            raise AssertionError(f"replica: {name} ended with {type(outcome).__name__}")


def inspect_done(tx: Transaction, run: Run, replica: Replica, inspected: InspectResult) -> None:
    """The run's first checkpoint must have the root that the manifest names."""
    if inspected.root != run.manifest.root:
        diverge(tx, replica, f"the first checkpoint is not the manifest's: {inspected.error or inspected.root}")
        return
    state = advance("replica", replica.state, ReplicaState.READY)
    state_id = initial_state_id(run.manifest.root)
    blob = run.manifest.checkpoint
    tx.put(KEY, msgspec.structs.replace(replica, state=state, root=inspected.root, state_id=state_id, blob=blob, confirming=run.id))


def aggregate_done(tx: Transaction, run: Run, replica: Replica, aggregated: AggregateResult) -> None:
    """Our outer step against the published one: anything but equality stops us, and is said in public."""
    announcement = run.announcements.get(replica.head)
    round_ = tx.get(f"round/{announcement}", Round)
    if round_ is None or round_.result is None:
        return
    result = round_.result[1]
    if aggregated.error is not None or aggregated.checkpoint is None or aggregated.state_id is None or aggregated.root is None:
        diverge(tx, replica, f"the outer step of round {result.round} failed: {aggregated.error}")
        return
    path = f"{tx.me.work_dir}/state-{result.round:05d}.safetensors"
    ours = (aggregated.state_id, aggregated.root, aggregated.weights)
    theirs = (result.state_id, result.root, weights(result.accepted))
    state = ReplicaState.READY if ours == theirs else ReplicaState.DIVERGED
    replica = msgspec.structs.replace(
        replica,
        state=advance("replica", replica.state, state),
        checkpoint=path,
        blob=result.checkpoint,
        state_id=aggregated.state_id,
        root=aggregated.root,
    )
    arrived(tx, run, replica, round_)
    if ours != theirs:
        tx.note("fault", "states_diverged", f"round {result.round}: we computed state {ours[0][:8]}, the result says {theirs[0][:8]}")


def gone(tx: Transaction, replica: Replica, reason: str) -> None:
    """A delta of an old round is not to be had now: leap if there is a checkpoint, whatever it costs; else wait for what comes first."""
    leap.stop_fetching(tx)
    tx.put(KEY, msgspec.structs.replace(replica, gone=True))
    tx.note("warning", "deltas_gone", f"a delta of round {replica.round + 1} is not to be had now: {reason}")


def weights(accepted: tuple[Accepted, ...]) -> tuple[int, ...]:
    """The integer weights of a result, in its order."""
    return tuple(item.weight for item in accepted)


def diverge(tx: Transaction, replica: Replica, reason: str) -> None:
    """We cannot follow any further; a person has to look."""
    state = advance("replica", replica.state, ReplicaState.DIVERGED)
    tx.put(KEY, msgspec.structs.replace(replica, state=state, confirming=None, leap=None))
    tx.note("fault", "states_diverged", reason)
