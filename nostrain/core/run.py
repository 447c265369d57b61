"""The fold of a run: which manifest, who enrolled, and the one chain announcement → result → announcement (decision 7)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from nostrain.core.bounds import manifest_problem
from nostrain.core.rounds.epoch import anchor_of
from nostrain.core.rows import Replica, Round, Run
from nostrain.core.timing import HEAR_S, YOUNG_S, deadlines
from nostrain.core.transaction import Transaction
from nostrain.core.waiting import Orphan
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.digests import initial_state_id
from nostrain.protocol.footprint import as_memory, evaluation_needs, needed_bytes
from nostrain.protocol.limits import MAX_ENROLLED, MAX_TOKENS_PER_S, MAX_VALIDATORS
from nostrain.protocol.manifest import BlobRef, RunManifest
from nostrain.protocol.messages import Announcement, Enrolment, Message
from nostrain.units import EventId, Pubkey, UnixTime

K = TypeVar("K")
V = TypeVar("V")


class Equivocation(RemoteProtocolError):
    """Two statements of one author that cannot both stand."""


def with_item(mapping: Mapping[K, V], key: K, value: V) -> dict[K, V]:
    """A copy of `mapping` with one item set."""
    return {**mapping, key: value}


def located(run: Run, blob: BlobRef) -> BlobRef:
    """`blob` with the run's own servers as further hints."""
    servers = tuple(f"{server}/{blob.sha256}" for server in run.manifest.blob_servers)
    return BlobRef(blob.sha256, blob.size, tuple(dict.fromkeys((*blob.urls, *servers))))


def fold_manifest(tx: Transaction, message: Message, manifest: RunManifest) -> None:
    """Follow this run if we follow none yet and it is one that we were told to join."""
    if tx.run is not None:
        return
    me = tx.me
    wanted_run = me.join_run is None or me.join_run == message.id
    wanted_coordinator = me.join_coordinator is None or me.join_coordinator == message.author
    settlement = manifest.settlement
    if settlement.mode != "none" and (not me.pays or settlement.network != me.network) and "worker" in me.roles:
        reason = f"pays on {settlement.network}, and we have no Lightning node there"
        tx.note("warning", "runs_unpayable", f"run {manifest.name} ({message.id[:8]}) {reason}: not joined")
        return
    signed = {curation.pubkey for curation in manifest.curations}
    if me.join_curators and not signed & {*me.join_curators} and message.author != me.pubkey:
        tx.note(
            "warning", "runs_not_curated", f"run {manifest.name} ({message.id[:8]}): none of our curators signed its dataset: not joined"
        )
        return
    leads = "coordinator" in me.roles
    if leads and message.author != me.pubkey:
        return
    if wanted_run and wanted_coordinator:
        check_manifest(message, manifest)
        if (lack := lack_of_memory(tx, manifest)) is not None:
            tx.note("warning", "runs_too_large", f"run {manifest.name} ({message.id[:8]}) {lack}: not joined")
            return
        state_id = initial_state_id(manifest.root)
        tx.put("run", Run(id=message.id, coordinator=message.author, manifest=manifest, head=message.id, state_id=state_id))
        if me.replicates:
            hear_s = HEAR_S if message.created_at < tx.now - YOUNG_S else 0
            tx.put("replica", Replica(head=message.id, hear_until=UnixTime(tx.now + hear_s)))
        tx.note("info", "runs_joined", f"run {manifest.name} ({message.id[:8]}) by {message.author[:8]}: {manifest.rounds} rounds")


def lack_of_memory(tx: Transaction, manifest: RunManifest) -> str | None:
    """What our machine lacks for this model, even with one window at a time; None when it fits, or when nothing is known of the machine."""
    me = tx.me
    needs = []
    if "worker" in me.roles:
        needs.append((needed_bytes(manifest.model, manifest.training, checkpointing=me.checkpointing)[0], "train"))
    if "validator" in me.roles:
        needs.append((evaluation_needs(manifest)[0], "evaluate"))
    lacking = [f"needs {as_memory(least)} to {what}" for least, what in needs if me.memory and least > me.memory]
    return f"{lacking[0]}, this machine has {as_memory(me.memory)}" if lacking else None


def check_manifest(message: Message, manifest: RunManifest) -> None:
    """Raises RemoteProtocolError naming the first thing that cannot be."""
    problem = manifest_problem(manifest)
    if problem is not None:
        raise RemoteProtocolError(f"manifest {message.id[:8]}", problem, whose=message.author[:8])


def fold_enrolment(tx: Transaction, message: Message, enrolment: Enrolment) -> None:
    """Remember the newest enrolment of each key; one key has one role in a run."""
    run = need_run(tx, enrolment.run)
    if enrolment.role == "validator" and (enrolment.oracle is None or enrolment.chain_end is None or enrolment.chain_length < 1):
        raise RemoteProtocolError("enrolment", "a validator without oracle key or hash chain", whose=message.author[:8])
    if not 0 <= enrolment.tokens_per_s <= MAX_TOKENS_PER_S:
        raise RemoteProtocolError("enrolment", f"{enrolment.tokens_per_s} tokens a second", whose=message.author[:8])
    network = run.manifest.settlement.network
    if enrolment.offer is not None and network not in enrolment.offer.networks:
        raise RemoteProtocolError("enrolment", f"its offer is not for {network}", whose=message.author[:8])
    known = run.enrolled.get(message.author)
    if known is None and len(run.enrolled) >= MAX_ENROLLED:
        raise RemoteProtocolError("enrolment", f"{MAX_ENROLLED} have enrolled already", whose=message.author[:8])
    if known is not None:
        _, created_at, before = known
        if terms_of(before) != terms_of(enrolment):
            raise RemoteProtocolError("enrolment", "contradicts an earlier one", whose=message.author[:8])
        if created_at >= message.created_at:
            return
    enrolled = with_item(run.enrolled, message.author, (message.id, message.created_at, enrolment))
    missed = {key: count for key, count in run.missed.items() if known is None or key != message.author}
    tx.put("run", msgspec.structs.replace(run, enrolled=enrolled, missed=missed))
    if known is None:
        tx.note("info", "enrolments", f"{enrolment.role} {enrolment.name} ({message.author[:8]}) enrolled")


def terms_of(enrolment: Enrolment) -> tuple[object, ...]:
    """What an author may not change any more."""
    return enrolment.role, enrolment.oracle, enrolment.chain_end, enrolment.chain_length


def fold_announcement(tx: Transaction, message: Message, announcement: Announcement) -> None:
    """Open a round on the chain. A second child of one parent is an equivocation and halts the run."""
    run = need_run(tx, announcement.run)
    if message.author != run.coordinator:
        raise RemoteProtocolError("announcement", "not by the coordinator of the run", whose=message.author[:8])
    other = run.announcements.get(announcement.parent)
    if other is not None:
        if other != message.id:
            halt(tx, run, f"the coordinator announced two rounds on {announcement.parent[:8]}")
        return
    if announcement.parent != run.head:
        if announcement.round <= run.round:
            return  # of a part of the chain that is not kept any more
        raise Orphan(announcement.parent)
    check_announcement(run, message, announcement)
    check_epoch(tx, run, message, announcement)
    base = (run.before or run.state_id) if run.manifest.delayed else None
    tx.put(f"round/{message.id}", Round(id=message.id, announcement=announcement, attempt=run.attempt, base=base))
    tx.put("run", msgspec.structs.replace(run, announcements=with_item(run.announcements, announcement.parent, message.id)))
    tx.note("info", "rounds_opened", f"round {announcement.round} open on state {announcement.state_id[:8]}")


def check_announcement(run: Run, message: Message, announcement: Announcement) -> None:
    """Raises RemoteProtocolError when the announcement does not continue the chain, or is not the only one that its date allows.

    It is not compared with enrolments: two of us may have seen different ones.
    """
    problem = None
    keys = [entry.pubkey for entry in announcement.validators]
    if announcement.round != run.round + 1 or announcement.round > run.manifest.rounds:
        problem = f"round {announcement.round} after round {run.round} of {run.manifest.rounds}"
    elif announcement.state_id != run.state_id:
        problem = f"opens on state {announcement.state_id[:8]}, the chain stands on {run.state_id[:8]}"
    elif announcement.deadlines != deadlines(message.created_at, run.manifest):
        problem = "its deadlines are not those of the manifest"
    elif list(announcement.workers) != sorted(set(announcement.workers)) or keys != sorted(set(keys)):
        problem = "its lists are not sorted, or repeat a key"
    elif set(announcement.workers) & set(keys):
        problem = "it lists someone as worker and validator"
    elif not 1 <= len(announcement.workers) <= run.manifest.places or not run.manifest.threshold <= len(keys) <= MAX_VALIDATORS:
        problem = f"{len(announcement.workers)} workers and {len(keys)} validators"
    elif len({entry.oracle for entry in announcement.validators}) != len(keys):
        problem = "two of its validators have one oracle key"
    if problem is not None:
        raise RemoteProtocolError("announcement", problem, whose=message.author[:8])


def check_epoch(tx: Transaction, run: Run, message: Message, announcement: Announcement) -> None:
    """Raises RemoteProtocolError when a round in the middle of an epoch lists validators that have announced nothing for it, or new workers."""
    anchor = anchor_of(tx, run.manifest, announcement.round)
    if anchor is None:
        return
    opened = anchor.announcement
    if announcement.validators != opened.validators or not set(announcement.workers) <= set(opened.workers):
        raise RemoteProtocolError("announcement", "its lists are not those of the round that opened the epoch", whose=message.author[:8])


def need_run(tx: Transaction, run_id: EventId) -> Run:
    """Our run if it has that id. Raises Orphan before any run is known, RemoteProtocolError for another run."""
    run = tx.run
    if run is None:
        raise Orphan(run_id)
    if run.id != run_id:
        raise RemoteProtocolError("message", f"belongs to another run, {run_id[:8]}")
    return run


def halt(tx: Transaction, run: Run, reason: str) -> None:
    """Stop following: the chain has forked or the result is void. Evidence stays in the journal."""
    if run.halted is None:
        tx.put("run", msgspec.structs.replace(run, halted=reason))
        tx.note("fault", "runs_halted", f"run {run.id[:8]} halted: {reason}")


def discredit(tx: Transaction, author: Pubkey, reason: str) -> None:
    """Remember that a validator contradicted itself: a coordinator does not list it again."""
    run = tx.run
    if run is not None and author not in run.faulty:
        tx.put("run", msgspec.structs.replace(run, faulty=with_item(run.faulty, author, reason)))
