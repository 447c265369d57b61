"""What a coordinator decides: whom it lists, what it pins, when it collects, what it uses, and how a round ends."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Compute, Computed, Failed, Fetch, Fetched, Upload, Uploaded
from nostrain.core.identity import RunPlan
from nostrain.core.listing import listed
from nostrain.core.rows import Lead, NodeState
from nostrain.core.tables import LeadState, ReplicaState
from nostrain.core.transaction import Transaction
from nostrain.protocol.jobs import AggregateJob, AggregateResult
from nostrain.protocol.messages import Announcement, Attestation, Message, Receipt, Result
from nostrain.units import Digest, Pubkey, UnixTime
from tests.core.actors import EXAMPLES, LABELS, LIMITS, MESSAGES, ROUND, Node, changed, until
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, blob

LEAD = f"lead/{EXAMPLES.round_id}"
GRACE = EXAMPLES.manifest.timing.grace_s
COLLECT_BY = LIMITS.attest_by + GRACE
AGGREGATE_BY = COLLECT_BY + EXAMPLES.manifest.timing.reveal_s


def leader(heard: list[Message], after: int = 44) -> Node:
    """A coordinator with its state, at a moment."""
    return Node(COORDINATOR, "coordinator").hear(heard).sold().ready().at(after)


def one(node: Node, kind: type) -> Message:
    """The one message of a type that the node has to say now."""
    (message,) = [message for message in node.speak() if isinstance(message.body, kind)]
    return message


def lead(node: Node) -> Lead:
    return node.row(LEAD, Lead)


# --- announcing ----------------------------------------------------------------------------------------------------------


def test_the_first_round_is_the_one_of_the_examples() -> None:
    node = leader(until("enrolment worker 2"), 5)
    assert one(node, Announcement).body == EXAMPLES.announcement


@pytest.mark.parametrize("missing", ["enrolment validator 0", "enrolment worker 1"])
def test_the_first_round_waits_for_enough_of_both(missing: str) -> None:
    node = leader([message for message in until("enrolment worker 2") if message.id != MESSAGES[missing].id])
    assert not node.speak()
    assert one(node.hear([MESSAGES[missing]]), Announcement)


def test_later_rounds_go_on_with_fewer_workers_and_with_t_validators() -> None:
    node = leader(ROUND)
    away = {party.pubkey: 3 for party in WORKERS[:2]}
    liar = {VALIDATORS[0].pubkey: "it lied"}
    there = {"head": node.run.head, "round": 1, "state_id": node.run.state_id, "confirming": None, "state": ReplicaState.READY}
    replica = msgspec.structs.replace(node.state.rows["replica"], **there)
    rows = {key: row for key, row in node.state.rows.items() if not key.startswith("effect/")}
    run = msgspec.structs.replace(node.run, missed=away, faulty=liar)
    node.state = NodeState({**rows, "run": run, "replica": replica})
    node.at(80)
    body = next(message.body for message in node.speak() if isinstance(message.body, Announcement))
    assert isinstance(body, Announcement)
    assert body.workers == (WORKERS[2].pubkey,)
    assert [entry.pubkey for entry in body.validators] == [party.pubkey for party in VALIDATORS[1:]]
    assert (body.round, body.parent) == (2, MESSAGES["result"].id)


def test_nothing_is_announced_from_a_state_that_is_not_ours_yet() -> None:
    node = Node(COORDINATOR, "coordinator").hear(until("enrolment worker 2")).at(5)
    assert not [message for message in node.speak() if isinstance(message.body, Announcement)]


def test_validators_whose_chain_is_over_or_whose_oracle_is_anothers_are_not_listed() -> None:
    node = leader(until("enrolment worker 2"))
    known = dict(node.run.enrolled)
    event, at, said = known[VALIDATORS[0].pubkey]
    twin = Pubkey("f" * 64)
    known[twin] = (event, at, said)
    run = msgspec.structs.replace(node.run, enrolled=known)
    assert [entry.pubkey for entry in listed(Transaction(node.state, node.now), run)[1]] == [party.pubkey for party in VALIDATORS]
    over = msgspec.structs.replace(run, round=8)
    assert listed(Transaction(node.state, node.now), over)[1] == ()


def test_a_run_that_is_over_opens_no_round() -> None:
    node = leader(until("enrolment worker 2"))
    run = msgspec.structs.replace(node.run, round=8)
    rows = {key: row for key, row in node.state.rows.items() if not key.startswith(("outbox/announcement", "effect/outbox/announcement"))}
    node.state = NodeState({**rows, "run": run})
    node.at(50)
    assert not [message for message in node.speak() if isinstance(message.body, Announcement)]


# --- the receipt ---------------------------------------------------------------------------------------------------------


def test_when_all_have_committed_the_receipt_is_the_canonical_one() -> None:
    node = leader(until("commitment 1"))
    assert not node.speak()
    assert one(node.hear([MESSAGES["commitment 2"]]), Receipt).id == MESSAGES["receipt"].id


def test_at_the_deadline_the_receipt_pins_who_is_there() -> None:
    node = leader(until("commitment 1")).at(LIMITS.commit_by - START)
    assert not node.speak()
    said = one(node.past(LIMITS.commit_by), Receipt)
    assert isinstance(said.body, Receipt)
    assert set(said.body.commitments) == {MESSAGES["commitment 0"].id, MESSAGES["commitment 1"].id}
    assert said.created_at == LIMITS.commit_by


def test_a_commitment_dated_in_the_future_does_not_date_the_receipt_there() -> None:
    """Else relays would refuse the receipt of a round whose phases are long."""
    ahead = changed("commitment 2", WORKERS[2], 80)
    node = leader([*until("commitment 1"), ahead], 44)
    assert not node.speak()
    assert not node.at(79).speak()
    said = one(node.at(80), Receipt)
    assert said.created_at == START + 80


def test_whoever_committed_twice_is_not_pinned() -> None:
    twice = changed("commitment 0", WORKERS[0], 41, commitment=Digest("5" * 64))
    node = leader([*until("commitment 2"), twice])
    assert not node.speak(), "a worker is missing, so the deadline decides"
    said = one(node.past(LIMITS.commit_by), Receipt)
    assert isinstance(said.body, Receipt)
    assert set(said.body.commitments) == {MESSAGES["commitment 1"].id, MESSAGES["commitment 2"].id}


def test_without_commitments_the_round_closes_empty() -> None:
    node = leader(until("announcement")).past(LIMITS.commit_by)
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert (said.accepted, said.committed, said.state_id) == ((), 0, EXAMPLES.state_id)
    assert {item.reason for item in said.refused} == {"no commitment in time, or more than one"}
    assert lead(node).state is LeadState.CLOSED


# --- collecting ----------------------------------------------------------------------------------------------------------


def collecting(labels: list[str], after: int = 66) -> Node:
    """A coordinator that pinned the examples' commitments itself, and then heard these."""
    node = leader(until("commitment 2"))
    node.speak()
    return node.hear([MESSAGES[label] for label in labels]).at(after)


AFTER_RECEIPT = LABELS[LABELS.index("acknowledgement 0") : LABELS.index("result")]


def without(*labels: str) -> list[str]:
    return [label for label in AFTER_RECEIPT if label not in labels]


def test_it_collects_when_everyone_who_acknowledged_has_attested() -> None:
    node = collecting(without("attestation 2"))
    assert lead(node).state is LeadState.RECEIPTED
    node.hear([MESSAGES["attestation 2"]])
    assert lead(node).state is LeadState.AGGREGATING
    assert set(lead(node).levels) == {WORKERS[0].pubkey, WORKERS[1].pubkey}
    assert {effect.blob.sha256 for effect in node.asks(Fetch)} == {EXAMPLES.deltas[0].sha256, EXAMPLES.deltas[1].sha256}


def test_it_waits_for_attestations_as_long_as_they_may_release_payments() -> None:
    node = collecting(without("attestation 2")).at(COLLECT_BY - START)
    assert lead(node).state is LeadState.RECEIPTED
    node.past(COLLECT_BY)
    assert lead(node).state is LeadState.AGGREGATING


def test_it_waits_for_the_reveal_of_what_was_attested() -> None:
    node = collecting(without("reveal 0"))
    assert lead(node).state is LeadState.RECEIPTED
    assert set(lead(node.hear([MESSAGES["reveal 0"]])).levels) == {WORKERS[0].pubkey, WORKERS[1].pubkey}
    late = collecting(without("reveal 0")).past(COLLECT_BY)
    assert set(lead(late).levels) == {WORKERS[1].pubkey}


def test_too_few_acknowledgements_close_the_round_empty() -> None:
    node = collecting(["acknowledgement 0"]).past(LIMITS.acknowledge_by)
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert said.accepted == ()
    assert said.committed == 3
    assert {item.reason for item in said.refused} == {"it was not revealed in time"}


def test_too_few_attestations_close_the_round_empty_and_say_so() -> None:
    node = collecting(without("attestation 1", "attestation 2")).past(COLLECT_BY)
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert said.accepted == ()
    told = {item.worker: item.reason for item in said.refused}
    assert told[WORKERS[0].pubkey] == "too few attestations, or its delta was not to be had"
    assert told[WORKERS[2].pubkey].endswith("is below the first level")


# --- aggregating ---------------------------------------------------------------------------------------------------------


def aggregated(node: Node) -> AggregateResult:
    """The outer step of the examples."""
    body = MESSAGES["result"].body
    assert isinstance(body, Result)
    weights = tuple(item.weight for item in body.accepted)
    return AggregateResult(body.state_id, body.root, blob("checkpoint 1", 297_824), weights)


def fetched(node: Node) -> Node:
    for effect in node.asks(Fetch):
        node.ends(effect, Fetched(f"/blobs/{effect.blob.sha256}"))
    return node


def mirrored(node: Node) -> Node:
    """The deltas are on the run's servers."""
    for effect in node.asks(Upload):
        if effect.name.startswith("mirror:"):
            node.ends(effect, Uploaded(("https://blobs.example/d",)))
    return node


def test_what_a_result_uses_is_on_the_runs_servers_before_it_is_published() -> None:
    """Else a worker could show its delta to validators and coordinator only, and everybody else would wait at this round for ever."""
    node = fetched(collecting(AFTER_RECEIPT))
    node.ends(node.asked(Compute), Computed(aggregated(node)))
    asked = {effect.blob.sha256: effect for effect in node.asks(Upload)}
    assert set(asked) == {EXAMPLES.deltas[0].sha256, EXAMPLES.deltas[1].sha256}
    assert {(effect.path, effect.servers) for effect in asked.values()} == {
        (f"/blobs/{sha}", EXAMPLES.manifest.blob_servers) for sha in asked
    }
    assert not node.speak()
    mirrored(node)
    assert one(node, Result)


def test_a_delta_that_the_runs_servers_refuse_is_left_out_of_the_outer_step() -> None:
    node = fetched(collecting(AFTER_RECEIPT))
    node.ends(node.asked(Compute), Computed(aggregated(node)))
    refused, kept = (node.asked(Upload, f"mirror:{delta.sha256}") for delta in EXAMPLES.deltas[:2])
    node.ends(kept, Uploaded(("https://blobs.example/d",)))
    node.ends(refused, Failed("403: not this one"))
    assert node.told("deltas_left_out")
    assert lead(node).outcome is None
    assert not node.asks(Upload), "the checkpoint of the step that used it is void"
    job = node.asked(Compute).job
    assert isinstance(job, AggregateJob)
    assert [digest for digest, _ in job.deltas] == [kept.blob.sha256]
    whole = aggregated(node)
    node.ends(node.asked(Compute), Computed(msgspec.structs.replace(whole, weights=whole.weights[1:])))
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert [item.delta.sha256 for item in said.accepted] == [kept.blob.sha256]


def test_when_the_runs_servers_refuse_every_delta_the_round_closes_empty() -> None:
    node = fetched(collecting(AFTER_RECEIPT))
    node.ends(node.asked(Compute), Computed(aggregated(node)))
    while asked := [effect for effect in node.asks(Upload) if effect.name.startswith("mirror:")]:
        node.ends(asked[0], Failed("403: full"))
        for effect in node.asks(Compute):
            node.ends(effect, Computed(aggregated(node)))
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert (said.accepted, said.state_id) == ((), EXAMPLES.state_id)


def test_from_deltas_to_a_result_that_everyone_takes() -> None:
    node = fetched(collecting(AFTER_RECEIPT))
    effect = node.asked(Compute)
    assert isinstance(effect.job, AggregateJob)
    assert [digest for digest, _ in effect.job.deltas] == [EXAMPLES.deltas[0].sha256, EXAMPLES.deltas[1].sha256]
    assert effect.job.committed == 3
    result = msgspec.structs.replace(aggregated(node), checkpoint=msgspec.structs.replace(blob("checkpoint 1", 297_824), urls=()))
    node.ends(effect, Computed(result))
    node.ends(node.asked(Upload, "checkpoint"), Uploaded(("https://blobs.example/c",)))
    mirrored(node)
    said = one(node, Result)
    assert node.run.round == 1
    assert node.run.halted is None
    listener = Node(WORKERS[0]).hear([*until("attestation 2"), said])
    assert (listener.run.round, listener.run.halted) == (1, None)
    body = said.body
    assert isinstance(body, Result)
    assert [item.level for item in body.accepted] == [4, 4]
    assert body.checkpoint.urls == ("https://blobs.example/c",)


def test_a_delta_that_is_not_to_be_had_is_left_out_in_the_end() -> None:
    node = collecting(AFTER_RECEIPT)
    first, second = sorted(node.asks(Fetch), key=lambda effect: effect.blob.sha256 != EXAMPLES.deltas[0].sha256)
    node.ends(second, Fetched("/blobs/second"))
    assert not node.at(AGGREGATE_BY - START).asks(Compute)
    node.past(AGGREGATE_BY)
    assert set(lead(node).levels) == {WORKERS[1].pubkey}
    assert not [effect for effect in node.asks(Fetch) if effect.id == first.id]
    assert node.told("deltas_left_out")
    job = node.asked(Compute).job
    assert isinstance(job, AggregateJob)
    assert len(job.deltas) == 1


def test_when_no_delta_is_to_be_had_the_round_closes_empty() -> None:
    node = collecting(AFTER_RECEIPT).past(AGGREGATE_BY)
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert (said.accepted, len(said.attestations)) == ((), len(VALIDATORS)), "verdicts on work that is not used are work too"
    assert not node.asks(Fetch)


@pytest.mark.parametrize(
    "outcome", [Failed("the engine refuses the job"), Computed(AggregateResult(None, None, None, error="delta 1: no delta"))]
)
def test_an_outer_step_that_fails_closes_the_round_without_work(outcome: Failed | Computed) -> None:
    node = fetched(collecting(AFTER_RECEIPT))
    node.ends(node.asked(Compute), outcome)
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert said.accepted == ()
    assert said.state_id == EXAMPLES.state_id
    assert node.told("aggregations_failed")
    assert node.run.round == 1


def test_a_refusal_passes_on_only_so_many_of_other_peoples_words() -> None:
    node = collecting(without("attestation 1", "attestation 2"))
    wordy = {}
    for author, (event, verdict) in node.round.verdicts.items():
        scores = tuple(msgspec.structs.replace(score, error="x" * 250) for score in verdict.scores)
        wordy[author] = (event, msgspec.structs.replace(verdict, scores=scores))
    key = f"round/{EXAMPLES.round_id}"
    node.state = NodeState({**node.state.rows, key: msgspec.structs.replace(node.round, verdicts=wordy)})
    node.past(COLLECT_BY)
    said = one(node, Result).body
    assert isinstance(said, Result)
    assert {len(item.reason) for item in said.refused} == {120}


def test_a_result_cites_one_attestation_of_each_validator() -> None:
    again = [changed("attestation 0", VALIDATORS[0], 66 + n) for n in range(1, 20)]
    node = leader(until("commitment 2"))
    node.speak()
    node.hear([MESSAGES[label] for label in AFTER_RECEIPT[:-3]])
    node.hear([*again, *(MESSAGES[label] for label in AFTER_RECEIPT[-3:])])
    fetched(node)
    node.ends(node.asked(Compute), Computed(aggregated(node)))
    said = one(mirrored(node), Result).body
    assert isinstance(said, Result)
    authors = [message.author for message in (*ROUND, *again) if message.id in said.attestations]
    assert sorted(authors) == sorted(party.pubkey for party in VALIDATORS)
    assert all(isinstance(message.body, Attestation) for message in again)


def test_others_lead_nothing() -> None:
    for party in (WORKERS[0], VALIDATORS[0]):
        node = Node(party, "coordinator").hear(until("commitment 2"))
        assert not node.has("run"), "a coordinator follows its own run only"
    assert UnixTime(START) < LIMITS.commit_by


def test_when_everyone_was_absent_nobody_is_left_out() -> None:
    """Workers enrol again when an open round does not list them: without a round nobody would."""
    node = leader(until("enrolment worker 2"))
    run = msgspec.structs.replace(node.run, missed={party.pubkey: 5 for party in WORKERS})
    assert listed(Transaction(node.state, node.now), run)[0] == EXAMPLES.announcement.workers


def test_an_operator_may_name_the_validators_that_its_money_hangs_on() -> None:
    named = (VALIDATORS[2].pubkey, VALIDATORS[0].pubkey)
    plan = RunPlan("run", 8, 3, 2, 2, None, 1, 1, 1, (), "/work", validators=named)
    node = Node(COORDINATOR, "coordinator", plan=plan).hear(until("enrolment worker 2"))
    found = listed(Transaction(node.state, node.now), node.run)[1]
    assert [entry.pubkey for entry in found] == sorted(named)
