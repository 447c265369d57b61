"""The fold of a round's result: it closes the round if it uses nothing but attested work, and halts the run otherwise (decision 4)."""

from __future__ import annotations

import msgspec

from nostrain.core.rounds.scoring import attesting, pinned
from nostrain.core.rows import Round, Run
from nostrain.core.run import halt, with_item
from nostrain.core.transaction import Transaction
from nostrain.core.waiting import Orphan, attestations_key, receipt_key, word_key
from nostrain.errors import RemoteProtocolError
from nostrain.protocol.messages import Accepted, Confirmation, Message, Result, Reveal


def fold_result(tx: Transaction, run: Run, round_: Round, message: Message, body: Result) -> None:
    """Close the round and move the chain on."""
    if message.author != run.coordinator:
        raise RemoteProtocolError("result", "not by the coordinator", whose=message.author[:8])
    if round_.result is not None:
        if round_.result[0] != message.id:
            halt(tx, run, f"the coordinator gave two results for round {body.round}")
        return
    problem = void_reason(run, round_, body)
    if problem is not None:
        halt(tx, run, f"the result of round {body.round} is void: {problem}")
        return
    tx.put(f"round/{round_.id}", msgspec.structs.replace(round_, result=(message.id, body)))
    spoke = set(pinned(round_))
    missed = {key: 0 if key in spoke else run.missed.get(key, 0) + 1 for key in round_.announcement.workers}
    run = msgspec.structs.replace(
        run,
        head=message.id,
        state_id=body.state_id,
        before=round_.announcement.state_id,
        round=body.round,
        attempt=0 if body.accepted else run.attempt + 1,
        results=with_item(run.results, round_.id, message.id),
        missed={**run.missed, **missed},
    )
    tx.put("run", run)
    used = ", ".join(item.worker[:8] for item in body.accepted) or "nobody"
    tx.note("info", "rounds_closed", f"round {body.round} closed: state {body.state_id[:8]}, uses the work of {used}")


def void_reason(run: Run, round_: Round, body: Result) -> str | None:
    """Why the result may not be used by anyone, or None. Raises Orphan while something that could make it stand is missing."""
    workers = [item.worker for item in body.accepted]
    if workers != sorted(set(workers)):
        return "its list is not sorted, or repeats a worker"
    if not workers:
        return None if body.state_id == round_.announcement.state_id else "it uses no work but changes the state"
    if round_.receipt is None:
        raise Orphan(receipt_key(round_.id))
    if body.committed != len(round_.receipt[1].commitments):
        return f"it divides by {body.committed}, {len(round_.receipt[1].commitments)} commitments are pinned"
    for item in body.accepted:
        problem = void_item(run, round_, body, item)
        if problem is not None:
            return problem
    return None


def void_item(run: Run, round_: Round, body: Result, item: Accepted) -> str | None:
    """Why one delta may not be used. More attestations never make it worse, so one that is missing is waited for only when it is needed.

    (A validator that signs more attestations than anyone keeps could otherwise strand whoever kept the others.)
    """
    if not 1 <= item.level <= len(run.manifest.scoring.levels_ppm):
        return f"level {item.level} of {item.worker[:8]} is none"
    if len(attesting(round_, item.worker, item.level, body.attestations)) < run.manifest.threshold:
        if not round_.attestations.keys() >= set(body.attestations):
            raise Orphan(attestations_key(round_.id))
        return f"level {item.level} of {item.worker[:8]} is not attested by {run.manifest.threshold} validators"
    reveal = round_.reveals.get(item.worker)
    if reveal is None:
        raise Orphan(word_key(round_.id, Reveal, item.worker))
    if (reveal.blob.sha256, reveal.blob.size) != (item.delta.sha256, item.delta.size):
        return f"the delta of {item.worker[:8]} is not the one that it revealed"
    return None


def fold_confirmation(run: Run, round_: Round, message: Message, body: Confirmation) -> Round:
    """What someone computed from the result, first word of each. It moves nothing, and is kept for those who took part in the round only."""
    known = {entry.pubkey for entry in round_.announcement.validators} | set(round_.announcement.workers) | {run.coordinator}
    if message.author not in known:
        if message.author not in run.enrolled:
            raise RemoteProtocolError("confirmation", "by someone who takes no part", whose=message.author[:8])
        return round_
    if round_.result is None:
        raise Orphan(body.result)
    if round_.result[0] != body.result:
        raise RemoteProtocolError("confirmation", f"of another result, {body.result[:8]}", whose=message.author[:8])
    before, word = round_.confirmations.get(message.author), (body.state_id, body.root)
    if before not in (None, word):
        raise RemoteProtocolError("confirmation", "contradicts what its author said before", whose=message.author[:8])
    return msgspec.structs.replace(round_, confirmations=with_item(round_.confirmations, message.author, word))
