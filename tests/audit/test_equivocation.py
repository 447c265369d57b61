"""Two signed words where one is allowed, for every kind of event; and everything that is allowed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from nostrain.audit.proof import check_proof, encode_proof, find_proofs, parse_proof_untrusted
from nostrain.protocol.contradictions import CITED, ONCE
from nostrain.protocol.event import Event
from nostrain.protocol.messages import Attestation, EpochAttestation
from nostrain.units import Digest
from nostrain.wire.messages import read_message_untrusted
from tests.docs.examples import COORDINATOR, START, VALIDATORS, WORKERS, Party

from .fraud_world import PUBLIC, ROUND

ALL = (*PUBLIC, *ROUND.private.values())
PARTIES: dict[str, Party] = {party.pubkey: party for party in (COORDINATOR, *WORKERS, *VALIDATORS)}
OTHER = Digest("ab" * 32)

CHANGES: dict[str, dict[str, Any]] = {
    "announcement": {"state_id": OTHER},
    "receipt": {"commitments": ()},
    "acknowledgement 1": {"link": OTHER},
    "reveal 0": {"salt": OTHER},
    "verdict hash 2": {"digest": OTHER},
    "verdict 0": {"salt": OTHER},
    "attestation 1": {"verdicts": ()},
    "result": {"state_id": OTHER},
    "confirmation 0": {"root": OTHER},
    "offer": {"oracles": ()},
    "choice": {"chosen": (0, 0, 0, 0)},
    "openings": {"seeds": ()},
    "invoices": {"bolt11": ()},
}


def event_of(label: str) -> Event:
    return ROUND.events.get(label) or ROUND.private[label]


def said_again(label: str, later: int = 1, **changes: Any) -> Event:
    """The same author says it again, later and with changes."""
    event = event_of(label)
    body = msgspec.structs.replace(read_message_untrusted(event).body, **changes)
    return PARTIES[event.pubkey].says(body, event.created_at - START + later)


def test_every_kind_that_may_be_said_once_is_tried() -> None:
    assert {type(read_message_untrusted(event_of(label)).body) for label in CHANGES} | {EpochAttestation} == set(ONCE)


def test_two_attestations_of_one_epoch_are_a_proof() -> None:
    """(The example's run has no epochs: its attestation serves as one.)"""
    event = event_of("attestation 1")
    said = read_message_untrusted(event).body
    assert isinstance(said, Attestation)
    one = EpochAttestation(said.run, said.announcement, said.round, 2, OTHER, said.items)
    events = [PARTIES[event.pubkey].says(body, event.created_at - START) for body in (one, msgspec.structs.replace(one, through=3))]
    found = [proof for proof in find_proofs((*ALL, *events)) if proof.kind == "equivocation"]
    assert [(proof.accused, {said.id for said in proof.events}) for proof in found] == [(event.pubkey, {said.id for said in events})]


@pytest.mark.parametrize("label", CHANGES)
def test_two_different_words_are_a_proof(label: str) -> None:
    one, two = event_of(label), said_again(label, **CHANGES[label])
    found = [proof for proof in find_proofs((*ALL, two)) if proof.kind == "equivocation"]
    assert [(proof.accused, {event.id for event in proof.events}) for proof in found] == [(one.pubkey, {one.id, two.id})]
    text = check_proof(parse_proof_untrusted(encode_proof(found[0])))
    assert one.id in text
    assert two.id in text
    assert find_proofs((two, *ALL)) == find_proofs((*ALL, two)), "the order of evidence is no matter"


@pytest.mark.parametrize("label", CHANGES)
def test_the_same_words_at_another_time_contradict_only_where_they_are_cited_by_id(label: str) -> None:
    again = said_again(label)
    found = find_proofs((*ALL, again))
    assert bool(found) == isinstance(read_message_untrusted(again).body, CITED)


@pytest.mark.parametrize(
    ("label", "changes"),
    [
        ("announcement", {"parent": OTHER}),
        ("receipt", {"announcement": OTHER}),
        ("verdict 0", {"announcement": OTHER}),
        ("reveal 0", {"commitment": OTHER}),
        ("offer", {"payee": WORKERS[1].pubkey}),
        ("choice", {"offer": OTHER}),
        ("commitment 0", {"commitment": OTHER}),
        ("oracle announcements 0", {"items": ()}),
        ("enrolment worker 0", {"name": "renamed"}),
        ("manifest", {"name": "another"}),
    ],
)
def test_what_is_about_something_else_or_may_be_repeated_is_no_offence(label: str, changes: dict[str, Any]) -> None:
    assert find_proofs((*ALL, said_again(label, **changes))) == []


def test_two_authors_do_not_contradict_each_other() -> None:
    body = read_message_untrusted(said_again("receipt", commitments=())).body
    assert find_proofs((*ALL, WORKERS[0].says(body, 50))) == []


def test_three_words_are_one_proof_and_two_questions_two() -> None:
    receipts = [said_again("receipt", later) for later in (1, 2)]
    result = said_again("result", 1)
    assert [proof.kind for proof in find_proofs((*ALL, *receipts))] == ["equivocation"]
    assert [proof.kind for proof in find_proofs((*ALL, *receipts, result))] == ["equivocation"] * 2
