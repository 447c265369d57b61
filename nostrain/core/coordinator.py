"""What a coordinator decides: prepare and publish the run, open rounds, pin commitments, aggregate what was attested, close."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Compute, Computed, Failed, Fetch, Fetched, Outcome, Upload, Uploaded
from nostrain.core.replica import aggregate_job
from nostrain.core.rows import Lead, Preparation, Replica, Round, Run, RunPlan
from nostrain.core.run import deadlines, located, with_item
from nostrain.core.scoring import attested_levels, pinned, standings
from nostrain.core.tables import LeadState, ReplicaState, advance
from nostrain.core.transaction import Transaction
from nostrain.errors import ConfigError, IllegalTransition
from nostrain.protocol.digests import receipt_time
from nostrain.protocol.jobs import AggregateResult, BuildRunJob, BuildRunResult
from nostrain.protocol.limits import MAX_VALIDATORS, MAX_WORKERS
from nostrain.protocol.manifest import BlobRef, ModelSpec, RunManifest
from nostrain.protocol.messages import Accepted, Announcement, Receipt, Refused, Result, ValidatorEntry
from nostrain.units import Digest, EventId, Pubkey, UnixTime

L = LeadState
MAX_REASON = 120
"""Characters of a refusal's reason in the result: part of it may be someone else's words."""
MAX_MISSED = 3
"""Rounds in a row that a listed worker may be absent before it is left out until it enrols again."""


def decide(tx: Transaction) -> None:
    """Prepare the run; then open the next round or take the open one a step further."""
    me, run = tx.me, tx.run
    if "coordinator" not in me.roles or me.plan is None:
        return
    if run is None:
        prepare(tx, me.plan)
    elif run.coordinator == me.pubkey and not run.halted:
        if run.open is None:
            announce(tx, run)
        else:
            round_ = tx.need(f"round/{run.open}", Round)
            lead = tx.get(f"lead/{round_.id}", Lead) or Lead(announcement=round_.id)
            step(tx, run, round_, lead)


def prepare(tx: Transaction, plan: RunPlan) -> None:
    """Build dataset and first checkpoint, upload them, publish the manifest."""
    row = tx.get("preparation", Preparation)
    if row is None:
        job = BuildRunJob(
            text=plan.text,
            model=ModelSpec(),
            seed=plan.seed,
            shard_bytes=plan.shard_bytes,
            validation_bytes=plan.validation_bytes,
            out_dir=f"{plan.work_dir}/run",
        )
        tx.emit(Compute(owner="preparation", name="build", job=job))
        return
    for blob, path in row.missing:
        tx.emit(Upload(owner="preparation", name=f"upload:{blob.sha256}", blob=blob, path=path, servers=plan.blob_servers))
    if not row.missing and row.manifest is not None:
        tx.say("manifest", row.manifest)


def built(plan: RunPlan, result: BuildRunResult) -> RunManifest:
    """The manifest of a run that was just built."""
    return RunManifest(
        name=plan.name,
        rounds=plan.rounds,
        min_workers=plan.min_workers,
        min_validators=plan.min_validators,
        threshold=plan.threshold,
        model=ModelSpec(),
        tensors=result.tensors,
        dataset=result.dataset,
        checkpoint=result.checkpoint,
        root=result.root,
        blob_servers=plan.blob_servers,
        scoring=plan.scoring,
        timing=plan.timing,
        settlement=plan.settlement,
    )


def announce(tx: Transaction, run: Run) -> None:
    """Open the next round once our replica stands on the head and enough have enrolled."""
    replica = tx.get("replica", Replica)
    if (
        run.finished
        or replica is None
        or replica.state is not ReplicaState.READY
        or replica.head != run.head
        or replica.confirming is not None
    ):
        return
    workers, validators = listed(run)
    least = run.manifest.min_workers if run.round == 0 else 1
    if len(workers) < least or len(validators) < run.manifest.min_validators:
        return
    assert replica.state_id is not None
    body = Announcement(
        run=run.id,
        round=run.round + 1,
        parent=run.head,
        state_id=replica.state_id,
        workers=workers,
        validators=validators,
        deadlines=deadlines(tx.now, run.manifest),
    )
    tx.say(f"announcement/{run.head}", body)


def listed(run: Run) -> tuple[tuple[Pubkey, ...], tuple[ValidatorEntry, ...]]:
    """Who the next round lists: those who enrolled first and are not absent, as many as the events of a round can carry, sorted by key."""
    by_age = sorted(run.enrolled.items(), key=lambda item: (item[1][1], item[0]))
    workers = [key for key, (_, _, one) in by_age if one.role == "worker" and run.missed.get(key, 0) < MAX_MISSED]
    validators: dict[Pubkey, ValidatorEntry] = {}
    for key, (_, _, one) in by_age:
        if one.role == "validator" and one.oracle is not None and one.chain_end is not None and one.endorsement is not None:
            validators.setdefault(one.oracle, ValidatorEntry(key, one.oracle, one.endorsement, one.chain_end, one.chain_length))
    entries = sorted(list(validators.values())[:MAX_VALIDATORS], key=lambda entry: entry.pubkey)
    return tuple(sorted(workers[:MAX_WORKERS])), tuple(entries)


def step(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """Receipt when the commitments are in, result when the attestations are in; an empty result when too few spoke in time."""
    limits = round_.announcement.deadlines
    expected = set(round_.acknowledgements)
    if lead.state is L.COLLECTING:
        committed = {author for author, _, _ in round_.commitments.values()}
        if committed >= set(round_.announcement.workers) or tx.now > limits.commit_by:
            receipt(tx, run, round_, lead)
    elif lead.state is L.RECEIPTED and round_.receipt is not None:
        late = tx.now > (limits.attest_by if len(expected) >= run.manifest.threshold else limits.acknowledge_by)
        if (len(expected) >= run.manifest.threshold and expected <= round_.attested) or late:
            collect(tx, run, round_, lead)
    elif lead.state is L.AGGREGATING:
        aggregate(tx, run, round_, lead)


def receipt(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """Pin each worker's earliest commitment, canonically; with none there is nothing to do this round."""
    earliest: dict[Pubkey, tuple[UnixTime, EventId]] = {}
    for event_id, (author, created_at, _) in round_.commitments.items():
        earliest[author] = min(earliest.get(author, (created_at, event_id)), (created_at, event_id))
    if not earliest:
        close(tx, run, round_, lead)
        return
    complete = len(earliest) == len(round_.announcement.workers)
    body = Receipt(
        run=run.id,
        announcement=round_.id,
        round=round_.announcement.round,
        commitments=tuple(sorted(event_id for _, event_id in earliest.values())),
    )
    when = receipt_time(round_.announcement.deadlines.commit_by, complete, [created_at for created_at, _ in earliest.values()])
    tx.say(f"{round_.id}/receipt", body, created_at=when)
    save(tx, lead, L.RECEIPTED)


def collect(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """What is attested and revealed enters the aggregate (decision 4)."""
    levels = attested_levels(round_, run.manifest.threshold)
    usable = {worker: level for worker, level in levels.items() if level >= 1 and worker in round_.reveals}
    if not usable:
        close(tx, run, round_, lead)
        return
    save(tx, msgspec.structs.replace(lead, levels=usable), L.AGGREGATING)


def aggregate(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """Fetch the deltas, take the outer step, upload the new checkpoint, close."""
    key = f"lead/{round_.id}"
    replica = tx.need("replica", Replica)
    deltas = [(worker, round_.reveals[worker].blob) for worker in sorted(lead.levels)]
    missing = [(worker, blob) for worker, blob in deltas if blob.sha256 not in lead.paths]
    for worker, blob in missing:
        tx.emit(Fetch(owner=key, name=f"delta:{blob.sha256}", blob=located(run, blob), whose=worker[:8]))
    if missing:
        return
    if lead.outcome is None:
        job = aggregate_job(tx, run, replica, deltas, lead.paths, len(pinned(round_)), "lead")
        tx.emit(Compute(owner=key, name="aggregate", job=job))
        return
    assert lead.outcome.checkpoint is not None
    if not lead.outcome.checkpoint.urls:
        path = f"{tx.me.work_dir}/lead-{round_.announcement.round:05d}.safetensors"
        tx.emit(Upload(owner=key, name="checkpoint", blob=lead.outcome.checkpoint, path=path, servers=run.manifest.blob_servers))
        return
    close(tx, run, round_, lead)


def close(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """Publish the result: the next state and whose work it uses, or an empty one that leaves the state as it is."""
    replica = tx.need("replica", Replica)
    outcome = lead.outcome
    accepted: tuple[Accepted, ...] = ()
    assert replica.state_id is not None and replica.root is not None and replica.blob is not None  # noqa: PT018 - we announced from it
    state: tuple[Digest, Digest, BlobRef] = (replica.state_id, replica.root, replica.blob)
    if outcome is not None and outcome.state_id is not None and outcome.root is not None and outcome.checkpoint is not None:
        workers = sorted(lead.levels)
        accepted = tuple(
            entry(round_, worker, weight, lead.levels[worker]) for worker, weight in zip(workers, outcome.weights, strict=True)
        )
        state = (outcome.state_id, outcome.root, outcome.checkpoint)
    body = Result(
        run=run.id,
        announcement=round_.id,
        round=round_.announcement.round,
        attestations=tuple(sorted(round_.attestations)) if accepted else (),
        accepted=accepted,
        refused=refusals(run, round_, lead),
        committed=len(pinned(round_)),
        state_id=state[0],
        root=state[1],
        checkpoint=state[2],
    )
    tx.say(f"{round_.id}/result", body)
    save(tx, lead, L.CLOSED)


def entry(round_: Round, worker: Pubkey, weight: int, level: int) -> Accepted:
    """One used delta. Its worker's URLs are not repeated: the reveal has them, and a result must fit into an event."""
    blob = round_.reveals[worker].blob
    return Accepted(worker=worker, delta=BlobRef(blob.sha256, blob.size), weight=weight, level=level)


def refusals(run: Run, round_: Round, lead: Lead) -> tuple[Refused, ...]:
    """Every listed worker that is not used, and why, as far as the verdicts tell."""
    verdicts = [verdict for _, verdict in round_.verdicts.values()]
    told = standings(verdicts, pinned(round_), run.manifest.scoring, {}) if verdicts else {}
    reasons = []
    for worker in round_.announcement.workers:
        if worker in lead.levels and lead.outcome is not None:
            continue
        if worker not in pinned(round_):
            reason = "no commitment in time"
        elif worker not in round_.reveals:
            reason = "it was not revealed in time"
        else:
            reason = (told[worker].reason if worker in told else None) or "too few attestations"
        reasons.append(Refused(worker=worker, reason=reason[:MAX_REASON]))
    return tuple(reasons)


def save(tx: Transaction, lead: Lead, state: LeadState | None = None) -> None:
    """Write the row, in a new state if one is given."""
    tx.put(f"lead/{lead.announcement}", msgspec.structs.replace(lead, state=advance("lead", lead.state, state or lead.state)))


def done(tx: Transaction, key: str, name: str, outcome: Outcome) -> None:
    """Take an outcome of one of the coordinator's effects."""
    if key == "preparation":
        prepared(tx, name, outcome)
        return
    lead = tx.get(key, Lead)
    if lead is None or lead.state is L.CLOSED:
        return
    match outcome:
        case Fetched(path=path):
            save(tx, msgspec.structs.replace(lead, paths=with_item(lead.paths, Digest(name.partition(":")[2]), path)))
        case Computed(result=AggregateResult(error=None) as result):
            save(tx, msgspec.structs.replace(lead, outcome=result))
        case Uploaded(urls=urls) if lead.outcome is not None and lead.outcome.checkpoint is not None:
            blob = msgspec.structs.replace(lead.outcome.checkpoint, urls=urls)
            save(tx, msgspec.structs.replace(lead, outcome=msgspec.structs.replace(lead.outcome, checkpoint=blob)))
        case Failed(reason=reason) | Computed(result=AggregateResult(error=str(reason))):
            tx.note("fault", "aggregations_failed", f"{name}: {reason}; the round closes without using any work")
            tx.withdraw(f"{key}#")
            run = tx.need("run", Run)
            close(tx, run, tx.need(f"round/{lead.announcement}", Round), msgspec.structs.replace(lead, levels={}, outcome=None))
        case _:
            raise IllegalTransition(f"{key}: {name} ended with {type(outcome).__name__}")


def prepared(tx: Transaction, name: str, outcome: Outcome) -> None:
    """A step of the preparation ended."""
    plan, row = tx.me.plan, tx.get("preparation", Preparation)
    match outcome:
        case Computed(result=BuildRunResult() as result) if plan is not None:
            tx.put("preparation", Preparation(missing=result.blobs, manifest=built(plan, result)))
            tx.note("info", "runs_built", f"built a run from {result.total_bytes} bytes of text")
        case Uploaded() if row is not None:
            digest = name.partition(":")[2]
            tx.put("preparation", msgspec.structs.replace(row, missing=tuple(pair for pair in row.missing if pair[0].sha256 != digest)))
        case Failed(reason=reason):
            raise ConfigError("coordinator.run", plan.name if plan else "", f"{name}: {reason}", "Mend the run's settings and start again")
        case _:
            raise IllegalTransition(f"preparation: {name} ended with {type(outcome).__name__}")
