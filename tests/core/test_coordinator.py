"""What a coordinator decides until a round has what it needs: whom it lists, what it pins, when it collects."""

from __future__ import annotations

import msgspec
import pytest

from nostrain.core.effects import Fetch
from nostrain.core.identity import RunPlan
from nostrain.core.listing import listed
from nostrain.core.rows import NodeState
from nostrain.core.tables import LeadState, ReplicaState
from nostrain.core.transaction import Transaction
from nostrain.protocol.messages import Announcement, Receipt, Result
from nostrain.units import Digest, Pubkey
from tests.core.actors import EXAMPLES, LIMITS, MESSAGES, ROUND, Node, changed, until
from tests.core.leads import COLLECT_BY, collecting, lead, leader, one, without
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS

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


# --- whose round it is, and who is named in it ---------------------------------------------------------------------------


def test_others_lead_nothing() -> None:
    for party in (WORKERS[0], VALIDATORS[0]):
        node = Node(party, "coordinator").hear(until("commitment 2"))
        assert not node.has("run"), "a coordinator follows its own run only"


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
