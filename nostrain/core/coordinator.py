"""What a coordinator decides once its run is published: open rounds, pin commitments, aggregate what was attested, close."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import Compute, Computed, Failed, Fetch, Fetched, Outcome, Upload, Uploaded
from nostrain.core.escrow.ticket import holds_ticket
from nostrain.core.listing import listed, still_listed
from nostrain.core.replica import aggregate_job
from nostrain.core.rounds.epoch import anchor_of
from nostrain.core.rounds.scoring import MAX_REASON, attested_levels, pinned, standings
from nostrain.core.rows import Lead, Replica, Round, Run
from nostrain.core.run import located, with_item
from nostrain.core.tables import LeadState, PayerState, ReplicaState, advance
from nostrain.core.timing import aggregate_by, collect_by, deadlines
from nostrain.core.transaction import Transaction
from nostrain.core.treasury.liquidity import able, before_locking
from nostrain.errors import IllegalTransition
from nostrain.protocol.digests import receipt_time
from nostrain.protocol.jobs import AggregateResult
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Accepted, Announcement, Receipt, Refused, Result
from nostrain.units import Digest, EventId, Pubkey, UnixTime

L, P = LeadState, PayerState


def decide(tx: Transaction) -> None:
    """Open the next round, or take the open one a step further, once our replica stands on its state."""
    me, run, replica = tx.me, tx.run, tx.get("replica", Replica)
    if "coordinator" not in me.roles or run is None or run.coordinator != me.pubkey or run.halted:
        return
    if replica is None or replica.state is not ReplicaState.READY or replica.head != run.head or replica.confirming is not None:
        return
    if run.open is None:
        announce(tx, run)
    else:
        round_ = tx.need(f"round/{run.open}", Round)
        lead = tx.get(f"lead/{round_.id}", Lead) or Lead(announcement=round_.id)
        step(tx, run, round_, lead)


def announce(tx: Transaction, run: Run) -> None:
    """Open the next round, if there is one, when enough have enrolled and its levels can be locked."""
    anchor = anchor_of(tx, run.manifest, run.round + 1)
    workers, validators = listed(tx, run) if anchor is None else still_listed(tx, run, anchor)
    first = run.round == 0
    least_workers, least_validators = (run.manifest.min_workers, run.manifest.min_validators) if first else (1, run.manifest.threshold)
    if not able(tx, run, leads=True, locked=anchor is not None):
        return
    if run.finished or len(workers) < least_workers or len(validators) < least_validators:
        return
    body = Announcement(
        run=run.id,
        round=run.round + 1,
        parent=run.head,
        state_id=run.state_id,
        workers=workers,
        validators=validators,
        deadlines=deadlines(tx.now, run.manifest),
    )
    if tx.say(f"announcement/{run.head}", body) and anchor is None:
        for line in before_locking(tx, run, workers):
            tx.note("warning", "locks_in_doubt", f"round {body.round}: {line}")


def step(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """Receipt when the commitments are in, result when the attestations are in; an empty result when too few spoke in time."""
    limits = round_.announcement.deadlines
    if lead.state is L.COLLECTING:
        collect_commitments(tx, run, round_, lead)
    elif lead.state is L.RECEIPTED and round_.receipt is not None:
        acknowledged = len(round_.acknowledgements) >= run.manifest.threshold
        late = tx.now > (collect_by(run, round_) if acknowledged else limits.acknowledge_by)
        if late or (acknowledged and all_attested(run, round_)):
            collect(tx, run, round_, lead)
    elif lead.state is L.AGGREGATING:
        aggregate(tx, run, round_, lead)


def all_attested(run: Run, round_: Round) -> bool:
    """Whether all who acknowledged have attested, and every delta that they attested has been revealed to us too: it will be paid for."""
    levels = attested_levels(round_, run.manifest.threshold)
    paid = {worker for worker, level in levels.items() if level >= 1}
    return set(round_.acknowledgements) <= round_.attested and paid <= set(round_.reveals)


def collect_commitments(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """Pin the commitment of each worker that made just one, and paid its fee: with those of all, as soon as they are not dated in the future."""
    by_author: dict[Pubkey, list[tuple[UnixTime, EventId]]] = {}
    for event_id, (author, created_at, _) in round_.commitments.items():
        by_author.setdefault(author, []).append((created_at, event_id))
    pins = [said[0] for author, said in by_author.items() if len(said) == 1 and holds_ticket(tx, run, round_, author)]
    commit_by = round_.announcement.deadlines.commit_by
    when = receipt_time(commit_by, len(pins) == len(round_.announcement.workers), [created_at for created_at, _ in pins])
    if tx.now > commit_by if when == commit_by else tx.now >= when:
        receipt(tx, run, round_, lead, tuple(sorted(event_id for _, event_id in pins)), when)


def receipt(tx: Transaction, run: Run, round_: Round, lead: Lead, pins: tuple[EventId, ...], when: UnixTime) -> None:
    """The canonical receipt; with nothing to pin there is nothing to do this round."""
    if not pins:
        close(tx, run, round_, lead)
        return
    body = Receipt(run=run.id, announcement=round_.id, round=round_.announcement.round, commitments=pins)
    tx.say(f"{round_.id}/receipt", body, created_at=when)
    save(tx, lead, L.RECEIPTED)


def cited(round_: Round) -> tuple[EventId, ...]:
    """One attestation event of each validator, sorted: a result must fit into an event, whoever attested more than once."""
    of_author = {author: event_id for event_id, (author, _) in sorted(round_.attestations.items(), reverse=True)}
    return tuple(sorted(of_author.values()))


def collect(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """What is attested and revealed enters the aggregate (decision 4)."""
    used = {event_id: round_.attestations[event_id] for event_id in cited(round_)}
    levels = attested_levels(msgspec.structs.replace(round_, attestations=used), run.manifest.threshold)
    usable = {worker: level for worker, level in levels.items() if level >= 1 and worker in round_.reveals}
    if not usable:
        close(tx, run, round_, lead)
        return
    save(tx, msgspec.structs.replace(lead, levels=usable), L.AGGREGATING)


def aggregate(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """Fetch the deltas, take the outer step, upload the new checkpoint and the deltas, close. A delta that is not to be had in time is left out.

    The deltas are uploaded again because their workers may have shown them to us and the validators only, and everybody needs them now.
    """
    key = f"lead/{round_.id}"
    replica = tx.need("replica", Replica)
    deltas = [(worker, round_.reveals[worker].blob) for worker in sorted(lead.levels)]
    missing = [(worker, blob) for worker, blob in deltas if blob.sha256 not in lead.paths]
    if missing and tx.now > aggregate_by(run, round_):
        for worker, _ in missing:
            lead = without(tx, round_, lead, worker, "its delta was not to be had in time")
        aggregate(tx, run, round_, lead)
        return
    for worker, blob in missing:
        tx.emit(Fetch(owner=key, name=f"delta:{blob.sha256}", blob=located(run, blob), whose=worker[:8], author=worker, must=True))
    if missing:
        return
    if not deltas:
        close(tx, run, round_, lead)
    elif lead.outcome is None:
        job = aggregate_job(tx, run, replica, deltas, lead.paths, len(pinned(round_)), "lead")
        tx.emit(Compute(owner=key, name="aggregate", job=job))
    elif publish(tx, run, round_, lead, deltas):
        close(tx, run, round_, lead)


def publish(tx: Transaction, run: Run, round_: Round, lead: Lead, deltas: list[tuple[Pubkey, BlobRef]]) -> bool:
    """Upload what the result will refer to; whether all of it is on the run's servers."""
    key, servers = f"lead/{round_.id}", run.manifest.blob_servers
    assert lead.outcome is not None and lead.outcome.checkpoint is not None  # noqa: PT018 - the outer step succeeded
    if not lead.outcome.checkpoint.urls:
        path = f"{tx.me.work_dir}/lead-{round_.announcement.round:05d}.safetensors"
        tx.emit(Upload(owner=key, name="checkpoint", blob=lead.outcome.checkpoint, path=path, servers=servers))
    missing = [blob for _, blob in deltas if blob.sha256 not in lead.mirrored]
    for blob in missing:
        tx.emit(Upload(owner=key, name=f"mirror:{blob.sha256}", blob=blob, path=lead.paths[blob.sha256], servers=servers))
    return bool(lead.outcome.checkpoint.urls) and not missing


def without(tx: Transaction, round_: Round, lead: Lead, worker: Pubkey, reason: str) -> Lead:
    """The aggregate leaves one delta out."""
    tx.withdraw(f"lead/{round_.id}", f"delta:{round_.reveals[worker].blob.sha256}")
    tx.note("warning", "deltas_left_out", f"round {round_.announcement.round}: {worker[:8]}: {reason}")
    lead = msgspec.structs.replace(lead, levels={key: level for key, level in lead.levels.items() if key != worker})
    save(tx, lead)
    return lead


def refused(tx: Transaction, key: str, lead: Lead, digest: Digest, reason: str) -> None:
    """The run's servers do not take a delta: the outer step is taken again without it, or whoever cannot fetch it waits at this round for ever."""
    round_ = tx.need(f"round/{lead.announcement}", Round)
    tx.withdraw(key)
    lead = msgspec.structs.replace(lead, outcome=None)
    for worker in [worker for worker in sorted(lead.levels) if round_.reveals[worker].blob.sha256 == digest]:
        lead = without(tx, round_, lead, worker, f"the run's servers do not take its delta: {reason}")


def close(tx: Transaction, run: Run, round_: Round, lead: Lead) -> None:
    """Publish the result: the next state and whose work it uses, or an empty one that leaves the state as it is."""
    replica = tx.need("replica", Replica)
    outcome = lead.outcome
    accepted: tuple[Accepted, ...] = ()
    assert replica.state_id is not None and replica.root is not None and replica.blob is not None  # noqa: PT018 - it is READY
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
        attestations=cited(round_),
        accepted=accepted,
        refused=refusals(run, round_, accepted),
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


def refusals(run: Run, round_: Round, used: tuple[Accepted, ...]) -> tuple[Refused, ...]:
    """Every listed worker that is not used, and why, as far as the verdicts tell."""
    verdicts = [verdict for _, verdict in round_.verdicts.values()]
    told = standings(verdicts, pinned(round_), run.manifest.scoring, {}) if verdicts else {}
    accepted, reasons = {item.worker for item in used}, []
    for worker in round_.announcement.workers:
        if worker in accepted:
            continue
        if worker not in pinned(round_):
            reason = "no commitment in time, or more than one"
        elif worker not in round_.reveals:
            reason = "it was not revealed in time"
        else:
            reason = (told[worker].reason if worker in told else None) or "too few attestations, or its delta was not to be had"
        reasons.append(Refused(worker=worker, reason=reason[:MAX_REASON]))
    return tuple(reasons)


def save(tx: Transaction, lead: Lead, state: LeadState | None = None) -> None:
    """Write the row, in a new state if one is given."""
    tx.put(f"lead/{lead.announcement}", msgspec.structs.replace(lead, state=advance("lead", lead.state, state or lead.state)))


def done(tx: Transaction, key: str, name: str, outcome: Outcome) -> None:
    """Take an outcome of one of the coordinator's effects."""
    lead = tx.get(key, Lead)
    if lead is None or lead.state is L.CLOSED:
        return
    match outcome:
        case Fetched(path=path):
            save(tx, msgspec.structs.replace(lead, paths=with_item(lead.paths, Digest(name.partition(":")[2]), path)))
        case Computed(result=AggregateResult(error=None) as result):
            save(tx, msgspec.structs.replace(lead, outcome=result))
        case Failed(reason=reason) if name.startswith("mirror:"):
            refused(tx, key, lead, Digest(name.partition(":")[2]), reason)
        case Uploaded() if name.startswith("mirror:"):
            save(tx, msgspec.structs.replace(lead, mirrored=(*lead.mirrored, Digest(name.partition(":")[2]))))
        case Uploaded(urls=urls) if lead.outcome is not None and lead.outcome.checkpoint is not None:
            blob = msgspec.structs.replace(lead.outcome.checkpoint, urls=urls)
            save(tx, msgspec.structs.replace(lead, outcome=msgspec.structs.replace(lead.outcome, checkpoint=blob)))
        case Failed(reason=reason) | Computed(result=AggregateResult(error=str(reason))):
            tx.note("fault", "aggregations_failed", f"{name}: {reason}; the round closes without using any work")
            tx.withdraw(key)
            run, round_ = tx.need("run", Run), tx.need(f"round/{lead.announcement}", Round)
            close(tx, run, round_, msgspec.structs.replace(lead, levels={}, outcome=None))
        case _:
            raise IllegalTransition(f"{key}: {name} ended with {type(outcome).__name__}")
