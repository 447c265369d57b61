"""Evidence, suspicions and disputes: what a node keeps, what it makes of it, what it does with what others claim."""

from __future__ import annotations

import msgspec

from nostrain.core.effects import BuyTicket, CheckDispute, Failed, Ok, Outcome, Prove, Proved, Send, Unheard
from nostrain.core.fraud.dispute_rows import Complaint, Heard, Suspicion
from nostrain.core.fraud.disputes import MAX_FALSE, MAX_OF_ONE, MAX_OF_STRANGERS
from nostrain.core.fraud.evidence import MAX_SUSPICIONS_OF_ONE, SPREAD_S
from nostrain.core.inputs import Received
from nostrain.core.rows import Submission
from nostrain.core.tables import ComplaintState, SubmissionState, SuspicionState
from nostrain.daemon.runners import proofs
from nostrain.protocol import messages as m
from nostrain.protocol.digests import dispute_digest
from nostrain.units import Digest, EventId, UnixTime
from nostrain.wire.messages import read_message_untrusted
from tests.core.actors import EXAMPLES, LABELS, MESSAGES, ROUND, Node, changed, say, until
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Party

U, K = SuspicionState, ComplaintState
LIAR = VALIDATORS[2]
CONTRADICTION = read_message_untrusted(EXAMPLES.contradiction)
CLAIM = read_message_untrusted(EXAMPLES.claims["dispute"])
assert isinstance(CLAIM.body, m.Dispute)
DISPUTE = CLAIM.body
KEY = f"complaint/{dispute_digest(DISPUTE)}"


def listener(party: Party = VALIDATORS[0], heard: str = "verdict hash 2") -> Node:
    return Node(party).hear(until(heard))


def suspicions(node: Node) -> list[Suspicion]:
    return [row for row in node.state.rows.values() if isinstance(row, Suspicion)]


def proven(effect: Prove | CheckDispute) -> Outcome:
    """What the shell answers when no event is missing."""
    return proofs.proved(effect) if isinstance(effect, Prove) else proofs.checked(effect.dispute, effect.events)


def claim(number: int, author: Party, accused: str = COORDINATOR.pubkey) -> m.Message:
    """Some dispute about nothing."""
    return say(author, m.Dispute(EXAMPLES.run, "equivocation", accused, (EventId(f"{number:064x}"),)), 100)  # type: ignore[arg-type]


# --- what is kept ------------------------------------------------------------------------------------------------------------


def test_everything_that_was_taken_is_kept_as_it_was_signed() -> None:
    node = Node(Party("listener")).hear(ROUND)
    kept = {row.event.id: row.event for row in node.state.rows.values() if isinstance(row, Heard)}
    left_out = {label for label in LABELS if label.split()[0] in ("enrolment", "commitment")}
    assert kept == {EXAMPLES.events[label].id: EXAMPLES.events[label] for label in LABELS if label not in left_out}
    before = node.state.rows
    assert node.hear(ROUND).state.rows == before


def test_what_is_said_by_nobody_of_the_round_is_not_kept() -> None:
    node = listener()
    before = [row for row in node.state.rows.values() if isinstance(row, Heard)]
    for body in (MESSAGES["verdict hash 0"].body, MESSAGES["receipt"].body, MESSAGES["attestation 0"].body):
        node.hear([say(Party("stranger"), body, 60)])
    assert [row for row in node.state.rows.values() if isinstance(row, Heard)] == before
    assert not suspicions(node)


def test_an_honest_round_makes_nobody_suspect() -> None:
    assert not suspicions(Node(WORKERS[1], "worker").hear(ROUND))


# --- our own evidence --------------------------------------------------------------------------------------------------------


def test_a_contradiction_is_proved_published_and_disputed_when_our_turn_comes() -> None:
    node = listener()
    node.now = UnixTime(START + 70)
    node.take(Received(CONTRADICTION))
    node.ends(node.asked(Prove), proven(node.asked(Prove)))
    assert LIAR.pubkey in node.run.faulty
    (row,) = suspicions(node)
    assert (row.state, row.dispute) == (U.PROVED, DISPUTE)
    assert START + 70 <= row.at < START + 70 + SPREAD_S
    if row.at > node.now:
        assert not node.asks(Send)
    node.at(row.at - START)
    sends = node.asks(Send)
    assert {effect.event.id for effect in sends} == set(DISPUTE.evidence)
    for effect in sends:
        assert effect.recipient is None
        assert not node.has(f"outbox/dispute/{dispute_digest(DISPUTE)}"), "the evidence goes first"
        node.ends(effect, Ok())
    (said,) = node.speak()
    assert said.body == DISPUTE
    (row,) = suspicions(node)
    assert (row.state, row.events) == (U.DISPUTED, ())
    node.take(Received(CONTRADICTION))
    assert not node.asks(Prove)


def test_who_hears_that_it_was_said_already_is_silent() -> None:
    node = listener()
    node.take(Received(CONTRADICTION))
    node.ends(node.asked(Prove), proven(node.asked(Prove)))
    node.take(Received(CLAIM))
    node.at(SPREAD_S + 60)
    assert [row.state for row in suspicions(node)] == [U.DROPPED]
    assert not node.asks(Send)
    assert not node.asks(CheckDispute), "it was proved here already"


def test_what_shows_nothing_is_dropped_and_nobody_hears_of_it() -> None:
    node = listener()
    node.take(Received(CONTRADICTION))
    node.ends(node.asked(Prove), Failed("shows nothing"))
    assert [row.state for row in suspicions(node)] == [U.DROPPED]
    assert not node.at(200).asks(Send)
    assert not node.has(KEY)


def test_relays_that_refuse_the_evidence_end_the_matter() -> None:
    node = listener()
    node.take(Received(CONTRADICTION))
    node.ends(node.asked(Prove), proven(node.asked(Prove)))
    node.at(SPREAD_S + 60)
    node.ends(node.asks(Send)[0], Failed("blocked"))
    assert [row.state for row in suspicions(node)] == [U.DROPPED]
    assert node.told("disputes_unpublished")


def test_nobody_accuses_itself_and_one_key_is_suspected_a_few_times() -> None:
    assert not suspicions(listener(LIAR).hear([CONTRADICTION]))
    node = Node(VALIDATORS[0]).hear(ROUND)
    for label in ("acknowledgement 2", "verdict hash 2", "verdict 2", "attestation 2"):
        node.hear([changed(label, LIAR, 90, receipt=Digest("1" * 64))])
    node.hear([changed("reveal 0", WORKERS[0], 90, blob=msgspec.structs.replace(EXAMPLES.deltas[0], urls=()))])
    assert len(suspicions(node)) == MAX_SUSPICIONS_OF_ONE + 1


def test_a_verdict_in_another_event_is_a_second_one() -> None:
    node = Node(VALIDATORS[0]).hear(ROUND)
    node.hear([changed("verdict 2", LIAR, MESSAGES["verdict 2"].created_at - START - 1)])
    assert isinstance(proven(node.asked(Prove)), Proved)


def test_levels_that_do_not_follow_are_proved() -> None:
    node = Node(WORKERS[0]).hear(until("verdict 2"))
    items = tuple(LIAR.attests(item, (1, 0, 0, 0)) for item in EXAMPLES.oracles[LIAR.name])
    node.hear([changed("attestation 2", LIAR, 66, items=items)])
    outcome = proven(node.asked(Prove))
    assert isinstance(outcome, Proved)
    assert (outcome.dispute.kind, outcome.dispute.accused) == ("unfounded_attestation", LIAR.pubkey)
    node.ends(node.asked(Prove), outcome)
    assert LIAR.pubkey in node.run.faulty


def test_a_void_result_is_proved_though_the_run_is_halted() -> None:
    node = Node(WORKERS[0]).hear(until("attestation 2"))
    body = MESSAGES["result"].body
    assert isinstance(body, m.Result)
    node.hear([changed("result", COORDINATOR, 70, attestations=body.attestations[:1])])
    assert node.run.halted
    outcome = proven(node.asked(Prove))
    assert isinstance(outcome, Proved)
    assert (outcome.dispute.kind, outcome.dispute.accused) == ("void_result", COORDINATOR.pubkey)


def test_an_oracle_that_signs_no_thermometer_is_proved() -> None:
    node = Node(WORKERS[0]).hear(until("verdict 2"))
    items = tuple(LIAR.attests(item, (0, 1, 0, 0)) for item in EXAMPLES.oracles[LIAR.name])
    node.hear([changed("attestation 2", LIAR, 66, items=items)])
    outcome = proven(node.asked(Prove))
    assert isinstance(outcome, Proved)
    assert (outcome.dispute.kind, outcome.dispute.accused) == ("non_prefix_digits", LIAR.oracle)
    node.ends(node.asked(Prove), outcome)
    assert LIAR.pubkey in node.run.faulty, "the validator, for its oracle's deed"


# --- what others claim -------------------------------------------------------------------------------------------------------


def test_a_dispute_is_checked_with_what_we_kept_and_acted_upon() -> None:
    node = listener(COORDINATOR).hear([CLAIM])
    effect = node.asked(CheckDispute)
    assert [event.id for event in effect.events] == [MESSAGES["verdict hash 2"].id], "the other one nobody showed us"
    assert proven(effect) == Failed("dispute: these are not the events that it names")
    both = msgspec.structs.replace(effect, events=(*effect.events, EXAMPLES.contradiction))
    node.ends(effect, proven(both))
    assert node.row(KEY, Complaint).state is K.PROVEN
    assert LIAR.pubkey in node.run.faulty
    assert not node.run.accusers
    node.hear([CLAIM, say(WORKERS[1], DISPUTE, 101)])
    assert not node.asks(CheckDispute), "the same claim is checked once"


def test_a_false_one_changes_nothing_but_its_authors_name() -> None:
    node = listener()
    for number in range(MAX_FALSE + 2):
        node.hear([claim(number, WORKERS[1])])
        for effect in node.asks(CheckDispute):
            node.ends(effect, Failed("proves nothing"))
    assert node.run.accusers == {WORKERS[1].pubkey: MAX_FALSE}
    assert (node.run.faulty, node.run.distrusted, node.run.halted) == ({}, None, None)
    assert len(node.told("disputes_refuted")) == MAX_FALSE
    assert len([text for text in node.told("messages_refused") if "that were false" in text]) == 2


def test_one_check_at_a_time_participants_first_and_quotas_for_all() -> None:
    node = listener()
    strangers = [Party(f"stranger {number}") for number in range(3)]
    for number in range(MAX_OF_STRANGERS + 3):
        node.hear([claim(number, strangers[number % 3])])
    for number in range(1000, 1000 + MAX_OF_ONE + 2):
        node.hear([claim(number, WORKERS[1])])
    rows = [row for row in node.state.rows.values() if isinstance(row, Complaint)]
    assert len(rows) == MAX_OF_STRANGERS + MAX_OF_ONE
    first = node.asked(CheckDispute)
    node.ends(first, Unheard())
    second = node.asked(CheckDispute)
    assert node.row(second.owner, Complaint).author == WORKERS[1].pubkey
    assert not node.run.accusers, "what is not to be had is not false"


def test_evidence_that_comes_later_is_checked_when_it_is_said_again() -> None:
    node = listener().hear([CLAIM])
    node.ends(node.asked(CheckDispute), Unheard())
    assert node.row(KEY, Complaint).state is K.UNHEARD
    assert not node.asks(CheckDispute)
    node.hear([say(WORKERS[1], DISPUTE, 102)])
    assert node.asked(CheckDispute).dispute == DISPUTE


def test_what_is_of_another_run_is_refused_and_who_is_unknown_is_waited_for() -> None:
    node = listener().hear([say(WORKERS[1], msgspec.structs.replace(DISPUTE, run=EventId("1" * 64)), 100)])
    assert node.told("messages_refused")
    late = Node(VALIDATORS[0]).hear(
        [MESSAGES["manifest"], say(WORKERS[1], msgspec.structs.replace(DISPUTE, accused=LIAR.oracle), 100), CLAIM]
    )
    assert not late.asks(CheckDispute)
    late.hear([MESSAGES["enrolment validator 2"]])
    assert len([row for row in late.state.rows.values() if isinstance(row, Complaint)]) == 2
    assert late.asked(CheckDispute)


def test_a_coordinator_proved_to_cheat_loses_its_workers_and_a_forked_run_stops() -> None:
    body = m.Dispute(EXAMPLES.run, "false_offer", COORDINATOR.pubkey, (EventId("1" * 64),))
    node = Node(WORKERS[1], "worker").hear(until("announcement")).ready().at(6)
    key = f"work/{EXAMPLES.round_id}"
    assert node.asks(BuyTicket)
    node.hear([say(WORKERS[0], body, 30)])
    node.ends(node.asked(CheckDispute), Proved(body, "it did", ""))
    assert node.run.distrusted == "it did"
    submission = node.row(key, Submission)
    assert (submission.state, submission.reason) == (SubmissionState.REFUSED, "the coordinator is not trusted any more")
    assert not node.asks(BuyTicket)
    fork = m.Dispute(EXAMPLES.run, "equivocation", COORDINATOR.pubkey, (EventId("1" * 64),))
    node.hear([say(WORKERS[0], fork, 30)])
    node.ends(node.asked(CheckDispute), Proved(fork, "two receipts", "Receipt"))
    assert node.run.halted == "two receipts"
