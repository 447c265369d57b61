"""One round: every message in its place, every refusal by its name, and one row in the end whatever the order."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nostrain.core.inputs import Received
from nostrain.core.rounds.round import phase
from nostrain.core.rows import Round, Waiting
from nostrain.core.tables import ROUND as LEGAL
from nostrain.core.tables import RoundPhase
from nostrain.protocol import messages as m
from nostrain.protocol.digests import verdict_digest
from nostrain.protocol.manifest import BlobRef
from nostrain.protocol.messages import Message
from nostrain.units import Digest, EventId, UnixTime
from tests.core.actors import EXAMPLES, LABELS, LIMITS, MESSAGES, ROUND, Node, changed, refuses, until
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Party

NOWHERE = EventId("0" * 64)
STRANGER = Party("stranger")


def late(label: str, party: Party, deadline: int) -> Message:
    """An example, dated one second too late."""
    return changed(label, party, deadline + 1 - START)


# --- refusals ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["commitment 0", "reveal 0"])
def test_workers_words_by_others_are_refused(label: str) -> None:
    for party in (STRANGER, VALIDATORS[0], COORDINATOR):
        refuses(until("reveal 2"), changed(label, party), "by someone who is no worker of this round")


@pytest.mark.parametrize("label", ["oracle announcements 0", "acknowledgement 0", "verdict hash 0", "verdict 0", "attestation 0"])
def test_validators_words_by_others_are_refused(label: str) -> None:
    for party in (STRANGER, WORKERS[0], COORDINATOR):
        refuses(until("attestation 2"), changed(label, party), "by someone who is no validator of this round")


@pytest.mark.parametrize("label", ["receipt", "result"])
def test_coordinators_words_by_others_are_refused(label: str) -> None:
    for party in (STRANGER, WORKERS[0], VALIDATORS[0]):
        refuses(until("attestation 2"), changed(label, party), "not by the coordinator")


@pytest.mark.parametrize("label", [label for label in LABELS[7:] if label != "announcement"])
def test_another_round_number_is_refused(label: str) -> None:
    before = LABELS[LABELS.index(label) - 1]
    party = next(one for one in (COORDINATOR, *WORKERS, *VALIDATORS) if one.pubkey == MESSAGES[label].author)
    refuses(until(before), changed(label, party, round=2), "says round 2 of an announcement of round 1")


def test_a_commitment_after_the_deadline_is_refused() -> None:
    refuses(until("announcement"), late("commitment 0", WORKERS[0], LIMITS.commit_by), "commitment from")
    node = Node(STRANGER).hear([*until("announcement"), changed("commitment 0", WORKERS[0], LIMITS.commit_by - START)])
    assert len(node.round.commitments) == 1


def test_a_commitment_on_another_state_is_refused() -> None:
    refuses(until("announcement"), changed("commitment 0", WORKERS[0], state_id=Digest("1" * 64)), "not the announced one")


def receipt(after: int, *numbers: int) -> Message:
    """A receipt that pins those commitments, in that order."""
    return changed("receipt", COORDINATOR, after, commitments=tuple(MESSAGES[f"commitment {n}"].id for n in numbers))


ORDER = sorted(range(3), key=lambda n: MESSAGES[f"commitment {n}"].id)
COMPLETE = MESSAGES["receipt"].created_at - START
DEADLINE = LIMITS.commit_by - START


@pytest.mark.parametrize(
    "bad",
    [
        receipt(COMPLETE, *reversed(ORDER)),
        receipt(COMPLETE, ORDER[0], ORDER[0], ORDER[1]),
        receipt(COMPLETE + 1, *ORDER),
        receipt(COMPLETE - 1, *ORDER),
        receipt(DEADLINE, *ORDER),
        receipt(COMPLETE, *ORDER[:2]),
        receipt(DEADLINE + 1, *ORDER[:2]),
        receipt(DEADLINE),
    ],
    ids=[
        "unsorted",
        "repeated",
        "a second late",
        "a second early",
        "at the deadline though complete",
        "early though incomplete",
        "late",
        "empty",
    ],
)
def test_a_receipt_that_is_not_canonical_is_refused(bad: Message) -> None:
    refuses(until("commitment 2"), bad, "not canonical")


def test_a_receipt_may_leave_out_who_did_not_commit_in_time() -> None:
    node = Node(STRANGER).hear([*until("commitment 2"), receipt(DEADLINE, *ORDER[:2])])
    assert node.round.receipt is not None


def test_a_receipt_that_pins_one_worker_twice_is_not_canonical() -> None:
    second = changed("commitment 0", WORKERS[0], 41, commitment=Digest("3" * 64))
    pins = tuple(sorted([MESSAGES["commitment 0"].id, second.id]))
    refuses([*until("commitment 2"), second], changed("receipt", COORDINATOR, DEADLINE, commitments=pins), "not canonical")


def test_what_names_another_receipt_is_refused() -> None:
    for label, party in (("acknowledgement 0", VALIDATORS[0]), ("verdict hash 0", VALIDATORS[0]), ("attestation 0", VALIDATORS[0])):
        refuses(until("receipt"), changed(label, party, receipt=NOWHERE), "names another receipt")


@pytest.mark.parametrize("index", [2, 3])
def test_an_acknowledgement_with_another_link_is_refused(index: int) -> None:
    link = VALIDATORS[0].chain_link(EXAMPLES.run, index)
    refuses(until("receipt"), changed("acknowledgement 0", VALIDATORS[0], link=link), "is not number 1 of its chain")


def test_a_reveal_of_anothers_commitment_is_refused() -> None:
    other = MESSAGES["commitment 1"].id
    refuses(until("receipt"), changed("reveal 0", WORKERS[0], commitment=other), "of a commitment that is not its author's, or not pinned")


def test_a_reveal_of_a_commitment_that_is_not_pinned_is_refused() -> None:
    pinned = receipt(DEADLINE, *sorted((1, 2), key=lambda n: MESSAGES[f"commitment {n}"].id))
    refuses([*until("commitment 2"), pinned], changed("reveal 0", WORKERS[0]), "or not pinned")


@pytest.mark.parametrize("changes", [{"salt": Digest("1" * 64)}, {"blob": BlobRef(Digest("1" * 64), EXAMPLES.deltas[0].size)}])
def test_a_reveal_of_something_else_is_refused(changes: dict[str, object]) -> None:
    refuses(until("receipt"), changed("reveal 0", WORKERS[0], **changes), "is not what was committed to")


@pytest.mark.parametrize("size", [-1, 0, -(1 << 61), EXAMPLES.manifest.max_delta_bytes + 1])
def test_a_reveal_of_an_impossible_size_is_refused(size: int) -> None:
    """Also when it did not come through the wire, which refuses most of them."""
    body = msgspec.structs.replace(MESSAGES["reveal 0"].body, blob=BlobRef(EXAMPLES.deltas[0].sha256, size))
    refuses(until("receipt"), Message(EventId("5" * 64), WORKERS[0].pubkey, START, body), f"promises {size} bytes")


def test_a_hash_or_verdict_after_its_deadline_is_refused() -> None:
    refuses(until("reveal 2"), late("verdict hash 0", VALIDATORS[0], LIMITS.hash_by), "after the deadline")
    refuses(until("verdict hash 2"), late("verdict 0", VALIDATORS[0], LIMITS.verdict_by), "after the deadline")


def test_a_verdict_that_is_not_the_announced_one_is_refused() -> None:
    refuses(until("verdict hash 2"), changed("verdict 0", VALIDATORS[0], salt=Digest("1" * 64)), "is not the one whose hash was published")
    # Nor can anyone open another's hash.
    refuses(until("verdict hash 2"), changed("verdict 0", VALIDATORS[1]), "is not the one whose hash was published")


def test_a_verdict_on_other_workers_or_another_state_is_refused() -> None:
    verdict = MESSAGES["verdict 0"].body
    assert isinstance(verdict, m.Verdict)
    for changes in ({"scores": verdict.scores[:2]}, {"scores": verdict.scores[::-1]}, {"state_id": Digest("1" * 64)}):
        other = msgspec.structs.replace(verdict, **changes)
        digest = verdict_digest(VALIDATORS[0].pubkey, other)
        announced = changed("verdict hash 0", VALIDATORS[0], 60, digest=digest)
        bad = changed("verdict 0", VALIDATORS[0], 64, **changes)
        refuses([*until("reveal 2"), announced], bad, "does not score exactly the pinned workers")


def test_an_attestation_of_other_digits_keys_or_workers_is_refused() -> None:
    body = MESSAGES["attestation 0"].body
    assert isinstance(body, m.Attestation)
    first, *others = body.items
    author = VALIDATORS[0].pubkey

    def bad(*items: m.AttestationItem) -> Message:
        return Message(EventId("6" * 64), author, START, msgspec.structs.replace(body, items=items))

    heard = until("verdict 2")
    refuses(heard, bad(msgspec.structs.replace(first, digits=(0, 1, 0, 0)), *others), "or no thermometer")
    refuses(heard, bad(msgspec.structs.replace(first, oracle=VALIDATORS[1].oracle), *others), "by another key")
    refuses(heard, bad(*others), "does not cover exactly the pinned workers")
    refuses(heard, bad(*others, first), "does not cover exactly the pinned workers")


def test_an_attestation_of_what_was_not_announced_waits() -> None:
    heard = [message for message in until("verdict 2") if message.id != MESSAGES["oracle announcements 0"].id]
    node = Node(STRANGER).hear([*heard, MESSAGES["attestation 0"]])
    assert not node.round.attestations
    node.hear([MESSAGES["oracle announcements 0"]])
    assert set(node.round.attestations) == {MESSAGES["attestation 0"].id}


@pytest.mark.parametrize("label", ["verdict hash 0"])
def test_a_second_word_that_differs_is_refused_and_remembered(label: str) -> None:
    node = Node(STRANGER).hear([*until(label), changed(label, VALIDATORS[0], digest=Digest("1" * 64))])
    assert "contradicts what its author said before" in node.told("messages_refused")[0]
    assert VALIDATORS[0].pubkey in node.run.faulty
    assert node.round.hashes[VALIDATORS[0].pubkey] == MESSAGES[label].body


@pytest.mark.parametrize("label", ["acknowledgement 0", "reveal 0", "verdict hash 0", "confirmation 0"])
def test_the_same_word_in_another_event_is_nothing_new(label: str) -> None:
    author = next(one for one in (*WORKERS, *VALIDATORS) if one.pubkey == MESSAGES[label].author)
    node = Node(STRANGER).hear(ROUND)
    before = node.state.rows
    node.hear([changed(label, author, MESSAGES[label].created_at - START - 1)])
    assert node.state.rows == before
    assert not node.told("messages_refused")


def test_of_one_verdict_in_two_events_all_keep_the_same() -> None:
    first = MESSAGES["verdict 0"]
    second = changed("verdict 0", VALIDATORS[0], first.created_at - START - 1)
    nodes = [Node(STRANGER).hear(m for m in ROUND if m.id != first.id).hear(said) for said in ([first, second], [second, first])]
    assert [node.round.verdicts[VALIDATORS[0].pubkey][0] for node in nodes] == [min(first.id, second.id)] * 2
    assert not nodes[0].run.faulty


# --- any order -----------------------------------------------------------------------------------------------------------


def test_the_round_goes_through_legal_phases() -> None:
    node, seen = Node(STRANGER), [RoundPhase.OPEN]
    for message in ROUND:
        node.take(Received(message))
        if node.has(f"round/{EXAMPLES.round_id}"):
            now = phase(node.round, node.run)
            if now is not seen[-1]:
                seen.append(now)
    assert seen == [R for R in RoundPhase if R is not RoundPhase.ABORTED]
    assert all(after in LEGAL[old] for old, after in pairwise(seen))


EXPECTED = Node(STRANGER).hear(ROUND)


@given(st.permutations(LABELS[1:]), st.integers(0, len(ROUND) - 1))
@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
def test_every_order_gives_the_same_round(labels: list[str], manifest_at: int) -> None:
    """Also the manifest may come later than what refers to it (through the mail), and everything twice."""
    order = [MESSAGES[label] for label in labels]
    order.insert(manifest_at, ROUND[0])
    node = Node(STRANGER).hear(order)
    assert node.round == EXPECTED.round
    assert node.run == EXPECTED.run
    assert not [row for row in node.state.rows.values() if isinstance(row, Waiting)]
    before = node.state.rows
    assert node.hear(order).state.rows == before
    assert not [note for note in node.notes if note.level != "info"]


@given(st.permutations(LABELS[1:]), st.lists(st.sampled_from(LABELS[7:]), max_size=12))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_strangers_echoes_change_nobodys_round(labels: list[str], echoed: list[str]) -> None:
    """A stranger repeats what others said under its own name, in between; whatever waits of it is gone in the end."""
    mixed = [ROUND[0]]
    for number, label in enumerate(labels):
        mixed.append(MESSAGES[label])
        if number < len(echoed):
            mixed.append(Message(EventId(f"{number:064x}"), STRANGER.pubkey, UnixTime(START + 20), MESSAGES[echoed[number]].body))
    node = Node(Party("listener")).hear(mixed)
    assert node.round == EXPECTED.round
    assert node.run == EXPECTED.run
    assert [row for row in node.state.rows.values() if isinstance(row, Round | Waiting)] == [node.round]
